"""portkey-ai for Python, unmodified, drives the control plane: every resource that it knows, secret references by generic calls.

Ends with status 0 and the line `done`. BASE_URL is where the control plane listens, OWNER_KEY may do everything.
"""

import os

from portkey_ai import Portkey

client = Portkey(base_url=f"{os.environ['BASE_URL']}/v1", api_key=os.environ["OWNER_KEY"], timeout=30)


def expect(actual, wanted):
    """Raises unless both are equal."""
    if actual != wanted:
        raise AssertionError(f"{actual!r} instead of {wanted!r}")


def gone(call):
    """Raises unless `call` finds nothing."""
    try:
        call()
    except Exception as error:
        expect(getattr(error, "status_code", None), 404)
    else:
        raise AssertionError("it is still there")


def of(answer, name):
    """A member of an answer to a generic call: the SDK hands out some of them as they came."""
    if hasattr(answer, "json") and hasattr(answer, "status_code"):
        answer = answer.json()
    return answer[name] if isinstance(answer, dict) else getattr(answer, name)


# Workspaces and their users.
team = client.admin.workspaces.create(name="Team", description="of Python", defaults={"metadata": {"team": "a"}}, users=["u-1"])
expect(client.admin.workspaces.retrieve(workspace_id=team.id).name, "Team")
client.admin.workspaces.update(workspace_id=team.id, description="changed")
expect(client.admin.workspaces.list(name="Team").total, 1)
client.admin.workspaces.users.create(workspace_id=team.id, users=[{"id": "u-2", "role": "member"}])
client.admin.workspaces.users.update(workspace_id=team.id, user_id="u-2", role="manager")
expect(client.admin.workspaces.users.retrieve(workspace_id=team.id, user_id="u-2").role, "manager")
expect(client.admin.workspaces.users.list(workspace_id=team.id).total, 2)
client.admin.workspaces.users.delete(workspace_id=team.id, user_id="u-2")

# Secret references, which the SDK does not know.
reference = client.post(
    "/secret-references",
    name="OpenAI key",
    slug="python-openai",
    manager_type="aws_sm",
    auth_config={
        "aws_auth_type": "accessKey",
        "aws_access_key_id": "AKIACANARY0123456789",
        "aws_secret_access_key": "canary-of-python-secret",
        "aws_region": "us-east-1",
    },
    secret_path="prod/openai",
)
expect(of(reference, "object"), "secret-reference")
client.put(path="/secret-references/python-openai", body={"description": "changed"})
shown = client.get(path="/secret-references/python-openai")
expect(of(shown, "description"), "changed")
expect(of(of(shown, "auth_config"), "masked_aws_secret_access_key"), "ca*****ret")

# Integrations, providers, virtual keys.
mapping = [{"target_field": "key", "secret_reference_id": "python-openai"}]
integration = client.integrations.create(name="OpenAI", ai_provider_id="openai", slug="python-openai-main", secret_mappings=mapping)
client.integrations.update(slug="python-openai-main", description="changed")
detail = client.integrations.retrieve(slug="python-openai-main")
expect(detail.secret_mappings[0]["target_field"], "key")
expect(client.integrations.list().total, 1)
client.integrations.workspaces.update(slug="python-openai-main", workspaces=[{"id": team.id, "enabled": True}])
expect(client.integrations.workspaces.list(slug="python-openai-main").total, 1)
provider = client.providers.create(name="Of the team", integration_id="python-openai-main", workspace_id=team.id, slug="python-vk")
expect(client.providers.retrieve(slug="python-vk", workspace_id=team.id).name, "Of the team")
client.providers.update(slug="python-vk", workspace_id=team.id, note="changed")
client.providers.delete(slug="python-vk", workspace_id=team.id)
key = client.virtual_keys.create(name="Alone", provider="openai", key="sk-canary-of-python-key", workspace_id=team.id)
client.virtual_keys.update(slug=key.slug, name="Renamed")
expect(client.virtual_keys.retrieve(slug=key.slug).name, "Renamed")
assert client.virtual_keys.list().total >= 1
client.virtual_keys.delete(slug=key.slug)

# Configs.
config = client.configs.create(name="Retry", config={"retry": {"attempts": 3}}, workspace_id=team.id, is_default=1)
assert config.slug.startswith("pc-retry-"), config.slug
changed = client.configs.update(slug=config.slug, name="Retry more", config={"retry": {"attempts": 5}}, status="active")
assert changed.version_id != config.version_id
shown = client.configs.retrieve(slug=config.slug)
expect((shown.name, shown.config), ("Retry more", '{"retry":{"attempts":5}}'))
expect(client.configs.list(workspace_id=team.id).total, 1)

# API keys: the examples of the documentation.
scopes = ["logs.export", "logs.list", "logs.view", "configs.create", "configs.update", "configs.delete", "configs.read",
          "configs.list", "virtual_keys.create", "virtual_keys.update", "virtual_keys.delete", "virtual_keys.read",
          "virtual_keys.list", "virtual_keys.copy"]
service = client.api_keys.create(
    name="API_KEY_NAME_0909", type="organisation", sub_type="service", workspace_id=team.id, scopes=scopes
)
expect(service.object, "api-key")
user = client.api_keys.create(
    name="User API Key",
    type="workspace",
    sub_type="user",
    workspace_id=team.id,
    user_id="u-1",
    scopes=["completions.write", "logs.view"],
    defaults={"config_id": config.slug, "metadata": {"app": "x"}, "allow_config_override": False},
    rate_limits=[{"type": "requests", "unit": "rpm", "value": 100}],
    usage_limits={"type": "cost", "credit_limit": 100, "alert_threshold": 80, "periodic_reset": "monthly"},
    rotation_policy={"rotation_period": "monthly", "key_transition_period_ms": 3_600_000},
    alert_emails=["admin@example.com"],
)
client.api_keys.update(id=user.id, name="Renamed", scopes=["completions.write"])
shown = client.api_keys.retrieve(id=user.id)
expect((shown.name, shown.type, shown.status, shown.scopes), ("Renamed", "workspace-user", "active", ["completions.write"]))
expect(shown.usage_limits["periodic_reset"], "monthly")
expect(client.api_keys.list(workspace_id=team.id, page_size=1, current_page=1).total, 2)
rotated = client.post(f"/api-keys/{user.id}/rotate", key_transition_period_ms=3_600_000)
assert of(rotated, "key") != user.key and of(rotated, "key_transition_expires_at")
# The key of the team reads the team's configs.
team_client = Portkey(base_url=f"{os.environ['BASE_URL']}/v1", api_key=service.key, timeout=30)
expect(team_client.configs.list().total, 1)

# The end of it all.
client.api_keys.delete(id=user.id)
gone(lambda: client.api_keys.retrieve(id=user.id))
client.api_keys.delete(id=service.id)
client.configs.delete(slug=config.slug)
gone(lambda: client.configs.retrieve(slug=config.slug))
client.integrations.workspaces.update(slug="python-openai-main", workspaces=[{"id": team.id, "enabled": False}])
client.integrations.delete(slug="python-openai-main")
client.delete(path="/secret-references/python-openai")
client.admin.workspaces.delete(workspace_id=team.id, name="Team")
gone(lambda: client.admin.workspaces.retrieve(workspace_id=team.id))
print("done")
