"""An application that is told line by line which SDK to use with which key, and says what came of it.

A line in is {"sdk", "key", "call", "headers"}; a line out {"text"}, or {"status", "code"} of the error that the SDK raised.
See tests/real/api_keys.rs.
"""

import json
import sys

from anthropic import Anthropic
from openai import OpenAI
from portkey_ai import Portkey

from cases import BASE_URL, PING, TIMEOUT_SECS


def portkey(key, headers):
    options = {name.removeprefix("x-portkey-").replace("-", "_"): value for name, value in headers.items()}
    return Portkey(base_url=f"{BASE_URL}/v1", api_key=key, timeout=TIMEOUT_SECS, **options)


def openai(key, headers):
    return OpenAI(base_url=f"{BASE_URL}/v1", api_key=key, default_headers=headers, timeout=TIMEOUT_SECS)


def anthropic(key, headers):
    headers = {"x-portkey-api-key": key, **headers}
    return Anthropic(base_url=BASE_URL, api_key="dummy", default_headers=headers, timeout=TIMEOUT_SECS)


def chat(client):
    return client.chat.completions.create(model="gpt-4o", messages=PING).choices[0].message.content


def stream(client):
    chunks = client.chat.completions.create(model="gpt-4o", messages=PING, stream=True)
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def embeddings(client):
    return str(client.embeddings.create(model="text-embedding-3-small", input="ping", encoding_format="float").data[0].embedding)


def messages(client):
    return client.messages.create(model="claude-haiku", max_tokens=16, messages=PING).content[0].text


SDKS = {"portkey": portkey, "openai": openai, "anthropic": anthropic}
CALLS = {"chat": chat, "stream": stream, "embeddings": embeddings, "messages": messages}

for line in sys.stdin:
    asked = json.loads(line)
    try:
        outcome = {"text": CALLS[asked["call"]](SDKS[asked["sdk"]](asked["key"], asked["headers"]))}
    except Exception as error:  # whatever an SDK raises is the finding
        response = getattr(error, "response", None)
        outcome = {
            "error": f"{type(error).__name__}: {error}",
            "status": getattr(response, "status_code", None),
            "code": response.headers.get("x-sidekey-error") if response is not None else None,
        }
    print(json.dumps(outcome), flush=True)
