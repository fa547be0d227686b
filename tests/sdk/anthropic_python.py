"""anthropic for Python, unmodified: a placeholder as its own key, the Portkey key in its header, Sidekey as base URL."""

from anthropic import Anthropic

from cases import BASE_URL, CLIENT_KEY, PING, TIMEOUT_SECS, case, expect, gate, release, run


def anthropic(**headers):
    headers = {f"x-portkey-{name.replace('_', '-')}": value for name, value in headers.items()}
    headers["x-portkey-api-key"] = CLIENT_KEY
    return Anthropic(base_url=BASE_URL, api_key="dummy", default_headers=headers, timeout=TIMEOUT_SECS)


def message(client, model):
    answer = client.messages.create(model=model, max_tokens=16, messages=PING)
    expect(answer.content[0].text, "pong")


@case("messages by provider slug")
def _():
    message(anthropic(provider="@anthropic-prod"), "claude-haiku")


@case("messages by virtual key")
def _():
    message(anthropic(virtual_key="anthropic-prod"), "claude-haiku")


@case("messages by model slug")
def _():
    message(anthropic(), "@anthropic-prod/claude-haiku")


@case("messages stream")
def _():
    tokens = []
    stream = anthropic().messages.create(
        model="@anthropic-prod/claude-haiku", max_tokens=16, messages=gate("anthropic-python"), stream=True
    )
    for event in stream:
        if event.type == "content_block_delta":
            tokens.append(event.delta.text)
        release("anthropic-python")
    expect(tokens, ["token-0", "token-1", "token-2"])


@case("count tokens")
def _():
    answer = anthropic().messages.count_tokens(model="@anthropic-prod/claude-haiku", messages=PING)
    expect(answer.input_tokens, 3)


run()
