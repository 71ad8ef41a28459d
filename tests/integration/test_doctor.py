from __future__ import annotations

import socket
from pathlib import Path

import pytest

from backplane.settings import PoolSettings, Settings
from backplane.settings.pools import BackendName
from cli import doctor, machine_checks, model_checks
from cli.configuration import load_llm
from cli.finding import FAIL, OK, WARN, Finding
from tests.unit.workers.inference.gguf_files import language_model

PASSWORD = "hunter2hunter2"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARLEY_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PARLEY_PORT", "0")
    return tmp_path


async def found() -> dict[str, Finding]:
    return {finding.what: finding async for finding in doctor.findings()}


async def test_a_fresh_folder_has_nothing_wrong(folder: Path) -> None:
    findings = await found()
    assert [finding for finding in findings.values() if finding.state == FAIL] == []
    assert findings["Postgres"].detail.endswith("makes it at the first start")
    assert not (folder / "data").exists()


async def test_a_wrong_setting_ends_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_BUS__LEASE_S", "0")
    findings = await found()
    assert findings["settings"].state == FAIL
    assert "PARLEY_BUS__LEASE_S" in findings["settings"].detail


async def test_names_that_mean_nothing_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_PROT", "8000")
    (folder / ".env").write_text("LLM_MODEL=x\n")
    (folder / "settings.toml").write_text("prot = 1\n")
    findings = list(machine_checks.configuration_files())
    assert [finding.detail for finding in findings if finding.state == WARN] == [
        "no setting is named prot",
        "no setting is named LLM_MODEL, PARLEY_PROT",
    ]


async def test_a_postgres_that_does_not_answer_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        monkeypatch.setenv("PARLEY_POSTGRES__URL", f"postgresql://a:{PASSWORD}@127.0.0.1:{port}/p")
        monkeypatch.setenv("PARLEY_REDIS__URL", f"redis://:{PASSWORD}@127.0.0.1:{port}/0")
        findings = await found()
    assert findings["Postgres"].state == FAIL
    assert findings["Redis"].state == WARN
    assert PASSWORD not in str(findings)


async def test_a_taken_port_is_wrong_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = Settings(port=taken.getsockname()[1])
        finding = machine_checks.free_port(settings)
    assert finding.state == FAIL
    assert "PARLEY_PORT" in finding.advice


def test_files_that_others_may_read_are_named(folder: Path) -> None:
    data = folder / "data"
    data.mkdir(mode=0o700)
    (data / "admin.key").touch(mode=0o600)
    (finding, _) = machine_checks.data_folder(Settings())
    assert finding.state == OK
    (data / "admin.key").chmod(0o644)
    (finding, _) = machine_checks.data_folder(Settings())
    assert finding.state == WARN
    assert "others may read admin.key" in finding.detail


@pytest.mark.parametrize(
    ("content", "says"), [(None, "not there"), (b"no model at all", "not a GGUF"), (b"GGUF", "cut short")]
)
def test_a_model_file_that_is_none_is_named(folder: Path, content: bytes | None, says: str) -> None:
    file = folder / "my.gguf"
    if content is not None:
        file.write_bytes(content)
    settings = Settings(pools={"local": PoolSettings(backend="xllamacpp", model_file=file)})
    (finding,) = model_checks.models(settings, load_llm())
    assert finding.state == FAIL
    assert says in finding.detail
    assert finding.advice


def test_each_file_of_a_pool_with_several_is_looked_at(folder: Path) -> None:
    for name in "ab":
        (folder / f"{name}.gguf").write_bytes(language_model())
    pool = PoolSettings(backend="xllamacpp", model_files={name: folder / f"{name}.gguf" for name in "ab"})
    settings = Settings(pools={"local": pool})
    assert [finding.state for finding in model_checks.models(settings, load_llm())] == [OK, OK]
    (folder / "b.gguf").write_bytes(language_model()[:100])
    (finding,) = model_checks.models(settings, load_llm())
    assert finding.state == FAIL
    assert "b.gguf: cut short" in finding.detail


def test_every_failure_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_MODEL_FILE", "gone.gguf")
    (finding,) = model_checks.models(Settings(), load_llm())
    assert finding.state == FAIL
    assert "LLM_MODEL_FILE" in finding.advice


@pytest.mark.parametrize("backend", ["llama-cpp-python", "transformers"])
def test_an_engine_that_is_not_installed_is_named_with_its_target(
    monkeypatch: pytest.MonkeyPatch, backend: BackendName
) -> None:
    monkeypatch.setattr(model_checks, "find_spec", lambda name: None if name != "xllamacpp" else object())
    pools = {"first": PoolSettings(backend="xllamacpp"), "other": PoolSettings(backend=backend, models=("m",))}
    (finding,) = model_checks.models(Settings(pools=pools), load_llm())
    assert (finding.state, finding.advice) == (FAIL, f"run `make install-{backend}`")
