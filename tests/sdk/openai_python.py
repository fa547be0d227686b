"""openai for Python, unmodified: the Portkey key as API key, Sidekey as base URL."""

import json

from openai import OpenAI

from cases import BASE_URL, CLIENT_KEY, FALLBACK, FIRST_FAILS, PING, TIMEOUT_SECS, audio, case, expect, gate, release, run


def openai(**headers):
    headers = {f"x-portkey-{name.replace('_', '-')}": value for name, value in headers.items()}
    return OpenAI(base_url=f"{BASE_URL}/v1", api_key=CLIENT_KEY, default_headers=headers, timeout=TIMEOUT_SECS)


def chat(client, model, **options):
    answer = client.chat.completions.create(model=model, messages=PING, **options)
    expect(answer.choices[0].message.content, "pong")


@case("chat by provider slug")
def _():
    chat(openai(provider="@openai-prod"), "gpt-4o-mini")


@case("chat by virtual key")
def _():
    chat(openai(virtual_key="openai-prod"), "gpt-4o-mini")


@case("chat by model slug")
def _():
    chat(openai(), "@openai-prod/gpt-4o-mini")


@case("chat stream")
def _():
    tokens = []
    stream = openai().chat.completions.create(
        model="@openai-prod/gpt-4o-mini", messages=gate("openai-python"), stream=True
    )
    for chunk in stream:
        tokens += [choice.delta.content for choice in chunk.choices if choice.delta.content]
        release("openai-python")
    expect(tokens, ["token-0", "token-1", "token-2"])


@case("chat by inline fallback config")
def _():
    chat(openai(config=json.dumps(FALLBACK)), FIRST_FAILS)


@case("chat by stored config")
def _():
    chat(openai(config="pc-fallback-1a2b3c"), FIRST_FAILS)


@case("chat on Anthropic")
def _():
    chat(openai(), "@anthropic-prod/claude-haiku", max_tokens=16)


@case("chat on Bedrock")
def _():
    chat(openai(), "@bedrock-prod/amazon.nova-lite")


@case("chat on Azure OpenAI")
def _():
    chat(openai(), "@azure-prod/gpt-4o-mini")


@case("embeddings")
def _():
    answer = openai().embeddings.create(model="@openai-prod/text-embedding-3-small", input="ping", encoding_format="float")
    expect(answer.data[0].embedding, [0.25, 0.5])


@case("responses")
def _():
    expect(openai().responses.create(model="@openai-prod/gpt-4o-mini", input="ping").output_text, "pong")


@case("transcription")
def _():
    expect(openai().audio.transcriptions.create(model="@openai-prod/whisper-1", file=audio()).text, "pong")


@case("speech")
def _():
    answer = openai().audio.speech.create(model="@openai-prod/tts-1", voice="alloy", input="ping")
    expect(answer.read(), b"ID3pong")


@case("images")
def _():
    expect(openai().images.generate(model="@openai-prod/gpt-image-1", prompt="ping").data[0].b64_json, "cG9uZw==")


@case("file upload")
def _():
    client = openai(provider="@openai-prod")
    expect(client.files.create(file=("batch.jsonl", b'{"ping": 1}\n'), purpose="batch").id, "file-1")


@case("models")
def _():
    expect([model.id for model in openai(provider="@openai-prod").models.list()], ["gpt-4o-mini"])


@case("realtime")
def _():
    with openai().realtime.connect(model="@openai-prod/gpt-realtime") as session:
        expect(session.recv().type, "session.created")
        session.response.create()
        expect(session.recv().type, "response.done")


run()
