"""portkey-ai for Python, unmodified, with Sidekey as its base URL."""

from portkey_ai import Portkey

from cases import BASE_URL, CLIENT_KEY, FALLBACK, FIRST_FAILS, PING, TIMEOUT_SECS, audio, case, expect, gate, release, run


def portkey(**options):
    return Portkey(base_url=f"{BASE_URL}/v1", api_key=CLIENT_KEY, timeout=TIMEOUT_SECS, **options)


def chat(client, model, **options):
    answer = client.chat.completions.create(model=model, messages=PING, **options)
    expect(answer.choices[0].message.content, "pong")


@case("chat by provider slug")
def _():
    chat(portkey(provider="@openai-prod"), "gpt-4o-mini")


@case("chat by virtual key")
def _():
    chat(portkey(virtual_key="openai-prod"), "gpt-4o-mini")


@case("chat by model slug")
def _():
    chat(portkey(), "@openai-prod/gpt-4o-mini")


@case("chat stream")
def _():
    stream = portkey(provider="@openai-prod").chat.completions.create(
        model="gpt-4o-mini", messages=gate("portkey-python"), stream=True
    )
    tokens = []
    for chunk in stream:
        tokens += [choice.delta.content for choice in chunk.choices if choice.delta.content]
        release("portkey-python")
    expect(tokens, ["token-0", "token-1", "token-2"])


@case("chat by inline fallback config")
def _():
    chat(portkey(config=FALLBACK), FIRST_FAILS)


@case("chat by stored config")
def _():
    chat(portkey(config="pc-fallback-1a2b3c"), FIRST_FAILS)


@case("chat on Anthropic")
def _():
    chat(portkey(), "@anthropic-prod/claude-haiku", max_tokens=16)


@case("chat on Bedrock")
def _():
    chat(portkey(provider="@bedrock-prod"), "amazon.nova-lite")


@case("chat on Azure OpenAI")
def _():
    chat(portkey(provider="@azure-prod"), "gpt-4o-mini")


@case("embeddings")
def _():
    answer = portkey().embeddings.create(model="@openai-prod/text-embedding-3-small", input="ping", encoding_format="float")
    expect(answer.data[0].embedding, [0.25, 0.5])


@case("responses")
def _():
    answer = portkey(provider="@openai-prod").responses.create(model="gpt-4o-mini", input="ping")
    expect(answer.output[0].content[0].text, "pong")


@case("transcription")
def _():
    answer = portkey().audio.transcriptions.create(model="@openai-prod/whisper-1", file=audio())
    expect(answer.text, "pong")


@case("speech")
def _():
    answer = portkey(provider="@openai-prod").audio.speech.create(model="tts-1", voice="alloy", input="ping")
    expect(answer.read(), b"ID3pong")


@case("images")
def _():
    answer = portkey().images.generate(model="@openai-prod/gpt-image-1", prompt="ping")
    expect(answer.data[0].b64_json, "cG9uZw==")


@case("file upload")
def _():
    answer = portkey(provider="@openai-prod").files.create(file=("batch.jsonl", b'{"ping": 1}\n'), purpose="batch")
    expect(answer.id, "file-1")


@case("models")
def _():
    answer = portkey(provider="@openai-prod").models.list()
    expect([model.id for model in answer.data], ["gpt-4o-mini"])


@case("realtime")
def _():
    with portkey().realtime.connect(model="@openai-prod/gpt-realtime") as session:
        expect(session.recv().type, "session.created")
        session.response.create()
        expect(session.recv().type, "response.done")


run()
