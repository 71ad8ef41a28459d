import json

from command_api.webhook_message import Message, headers, message


def test_the_signature_is_the_one_of_the_standards_own_example() -> None:
    sent = Message("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}')
    assert headers(sent, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 1614265330) == {
        "content-type": "application/cloudevents+json",
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_all_of_the_envelope_is_sent_but_what_was_written() -> None:
    event = {"specversion": "1.0", "id": "1", "type": "thing.happened.v1", "data": {"count": 1, "name": "content"}}
    written = {"content": {"text": "canary"}, "title": "canary"}
    line = json.dumps(event | {"data": {**event["data"], **written}}).encode()  # type: ignore[dict-item]
    assert json.loads(message(line).body) == event
    sealed = json.dumps(event | {"data": {**event["data"], "content": {"sealed": "canary"}}}).encode()  # type: ignore[dict-item]
    assert message(sealed) == message(line)
