from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest

from backplane.settings import LlmSettings, PoolSettings, Settings
from cli import local_models
from tests.unit.workers.inference.gguf_files import language_model
from workers.inference.gguf import ModelError, NotAModel, read_header
from workers.inference.hub import download
from workers.inference.model_files import ModelFile, common_window, find_model, whole_size
from workers.inference.packaged_model import assemble


@dataclass
class Machine:
    """A models folder and a data folder of its own."""

    root: Path
    doing: list[str] = field(default_factory=list)

    def put(self, name: str, data: bytes | None = None) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(language_model() if data is None else data)
        return path

    def find(self, **llm: object) -> ModelFile:
        return find_model(
            LlmSettings.model_validate(llm),
            models_dir=self.root / "models",
            data_dir=self.root / "data",
            progress=lambda doing, share: self.doing.append(doing),
        )


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.chdir(tmp_path)
    for name in LlmSettings.model_fields:
        monkeypatch.delenv(f"LLM_{name.upper()}", raising=False)
    return Machine(tmp_path)


def test_the_only_model_in_the_folder_is_found(machine: Machine) -> None:
    path = machine.put("models/My Model_Q4.gguf")
    found = machine.find()
    assert found == ModelFile("my-model_q4", path.resolve(), 4096, False, None)


def test_several_models_in_the_folder_are_listed(machine: Machine) -> None:
    machine.put("models/a.gguf")
    machine.put("models/b.gguf")
    with pytest.raises(ModelError, match=r"a\.gguf, b\.gguf"):
        machine.find()


@pytest.mark.parametrize("named", ["models/b.gguf", "b.gguf", "b"])
def test_a_named_file_wins_over_the_hub_and_the_folder(machine: Machine, named: str) -> None:
    machine.put("models/a.gguf")
    path = machine.put("models/b.gguf")
    assert machine.find(model_file=named, huggingface_repo="me/it", huggingface_file="*").path == path.resolve()


def test_a_file_elsewhere_is_found_by_its_path(machine: Machine) -> None:
    path = machine.put("elsewhere/x.gguf")
    assert machine.find(model_file=str(path)).path == path.resolve()


def test_a_missing_name_lists_what_is_there(machine: Machine) -> None:
    machine.put("models/a.gguf")
    with pytest.raises(NotAModel, match=r"zephyr.*LLM_MODEL_FILE.*a\.gguf"):
        machine.find(model_file="zephyr")


def test_the_hub_wins_over_the_folder_and_what_was_downloaded_is_used(machine: Machine) -> None:
    machine.put("models/a.gguf")
    path = machine.put("data/models/me--it/sub/it-Q4_K_M.gguf")
    assert machine.find(huggingface_repo="me/it", huggingface_file="*Q4_K*").path == path.resolve()


def test_a_hub_file_without_its_repository(machine: Machine) -> None:
    with pytest.raises(ModelError, match="LLM_HUGGINGFACE_REPO"):
        machine.find(huggingface_file="*")


def test_without_the_extra_the_hub_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match="uv sync --extra hub"):
        download("me/it", None, tmp_path, lambda doing, share: None)


def test_a_split_model_is_one_and_half_of_it_is_not_enough(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    first = machine.put("data/models/me--it/it-00001-of-00002.gguf")
    with pytest.raises(ModelError):
        machine.find(huggingface_repo="me/it")
    machine.put("data/models/me--it/it-00002-of-00002.gguf")
    found = machine.find(huggingface_repo="me/it")
    assert (found.path, found.name) == (first.resolve(), "it")


def test_the_window(machine: Machine) -> None:
    machine.put("models/small.gguf", language_model(context_length=2048))
    assert machine.find().context_window == 2048
    assert machine.find(context_window=1024).context_window == 1024
    with pytest.raises(ModelError, match=r"4000.*2048"):
        machine.find(context_window=4000)


def test_a_broken_file_says_so(machine: Machine) -> None:
    machine.put("models/broken.gguf", b"nothing of the kind")
    with pytest.raises(NotAModel, match="not a GGUF"):
        machine.find()


def test_a_model_in_several_files_is_as_large_as_all_of_them(machine: Machine) -> None:
    first = machine.put("big-00001-of-00003.gguf")
    header = read_header(first)
    assert whole_size(machine.put("one.gguf"), header) == header.size
    machine.put("big-00002-of-00003.gguf", b"x" * 100)
    with pytest.raises(NotAModel, match=r"big-00003-of-00003.gguf: not there; .* first of 3 files"):
        whole_size(first, header)
    machine.put("big-00003-of-00003.gguf", b"x" * 10)
    assert whole_size(first, header) == header.size + 110


def test_models_that_share_a_pool_get_the_window_that_all_have(machine: Machine) -> None:
    paths = [machine.put("a.gguf", language_model(2048)), machine.put("b.gguf", language_model(8192))]
    assert common_window(paths, None) == 2048
    assert common_window(paths, 512) == 512
    with pytest.raises(ModelError, match=r"a.gguf has 2048; .* context_window"):
        common_window(paths, 4096)


async def test_parley_up_finds_the_window_of_a_pool_with_several_files(machine: Machine) -> None:
    paths = {"a": machine.put("a.gguf", language_model(2048)), "b": machine.put("b.gguf", language_model(8192))}
    settings = Settings(pools={"many": PoolSettings(backend="xllamacpp", model_files=paths)})
    found = await local_models.resolved(settings, LlmSettings(), lambda doing, share: None)
    assert found.pools["many"].context_window == 2048
    machine.put("b.gguf", language_model()[:100])
    with pytest.raises(NotAModel, match=r"b.gguf: cut short"):
        await local_models.resolved(settings, LlmSettings(), lambda doing, share: None)


class TestAssembling:
    @pytest.fixture
    def chunks(self, tmp_path: Path) -> list[Path]:
        paths = [tmp_path / f"part{n}" for n in range(3)]
        for n, path in enumerate(paths):
            path.write_bytes(bytes([n]) * 1000)
        return paths

    @staticmethod
    def _sum(chunks: list[Path]) -> str:
        return sha256(b"".join(chunk.read_bytes() for chunk in chunks)).hexdigest()

    def test_put_together_once(self, tmp_path: Path, chunks: list[Path]) -> None:
        target, doing = tmp_path / "out" / "m.gguf", list[tuple[str, float]]()

        def progress(what: str, share: float) -> None:
            doing.append((what, share))

        expected = self._sum(chunks)
        assert assemble(chunks, target, expected, progress).read_bytes() == b"\0" * 1000 + b"\1" * 1000 + b"\2" * 1000
        assert doing[-1] == ("assembling m.gguf", 1.0)
        assert {file.name for file in target.parent.iterdir()} == {"m.gguf", "m.gguf.verified"}
        doing.clear()
        assemble(chunks, target, expected, progress)
        assert doing == []

    def test_a_changed_file_is_put_together_again(self, tmp_path: Path, chunks: list[Path]) -> None:
        target = tmp_path / "m.gguf"
        expected = self._sum(chunks)
        assemble(chunks, target, expected, lambda *_: None)
        target.write_bytes(b"cut")
        assemble(chunks, target, expected, lambda *_: None)
        assert target.stat().st_size == 3000

    def test_a_lost_stamp_costs_a_check_only(self, tmp_path: Path, chunks: list[Path]) -> None:
        target, doing = tmp_path / "m.gguf", set[str]()
        expected = self._sum(chunks)
        assemble(chunks, target, expected, lambda *_: None)
        target.with_name("m.gguf.verified").unlink()
        assemble(chunks, target, expected, lambda what, share: doing.add(what))
        assert doing == {"checking m.gguf"}

    def test_damaged_packages_leave_nothing_behind(self, tmp_path: Path, chunks: list[Path]) -> None:
        with pytest.raises(ModelError, match="damaged"):
            assemble(chunks, tmp_path / "out" / "m.gguf", "0" * 64, lambda *_: None)
        assert list((tmp_path / "out").iterdir()) == []

    def test_no_place_to_write(self, tmp_path: Path, chunks: list[Path]) -> None:
        (tmp_path / "out").write_text("a file where the folder should be")
        with pytest.raises(ModelError, match="can't be put together"):
            assemble(chunks, tmp_path / "out" / "m.gguf", self._sum(chunks), lambda *_: None)
