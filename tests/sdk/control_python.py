"""portkey-ai for Python, unmodified, with a control plane of Sidekey as its base URL. See tests/real/control_sdk.rs."""

from portkey_ai import Portkey

from cases import BASE_URL, CLIENT_KEY, TIMEOUT_SECS, case, expect, run

KEY = "sk-canary-of-the-sdk-0123456789"
portkey = Portkey(base_url=f"{BASE_URL}/v1", api_key=CLIENT_KEY, timeout=TIMEOUT_SECS)
made = {}


def slugs(listed):
    return sorted(row["slug"] for row in listed.data)


def refused(call, *parts):
    """Raises unless `call` is refused, for a reason that holds all of `parts`."""
    try:
        call()
    except Exception as error:
        for part in parts:
            if part not in str(error):
                raise AssertionError(f"{part!r} is not in {error!s}") from error
        return
    raise AssertionError("was not refused")


@case("workspaces")
def _():
    for name in ["Team A", "Team B"]:
        workspace = portkey.admin.workspaces.create(name=name, description="of a test")
        made[name] = workspace.id
    listed = portkey.admin.workspaces.list()
    expect(listed.total, 2)
    portkey.admin.workspaces.update(workspace_id=made["Team A"], description="changed")
    expect(portkey.admin.workspaces.retrieve(workspace_id=made["Team A"])["description"], "changed")
    portkey.admin.workspaces.users.create(workspace_id=made["Team A"], users=[{"id": "user-1", "role": "admin"}])
    expect(portkey.admin.workspaces.users.list(workspace_id=made["Team A"]).total, 1)
    portkey.admin.workspaces.users.update(workspace_id=made["Team A"], user_id="user-1", role="member")
    portkey.admin.workspaces.users.delete(workspace_id=made["Team A"], user_id="user-1")


@case("secret references by generic calls")
def _():
    created = portkey.post(
        "/secret-references",
        name="Vault",
        slug="vault",
        manager_type="hashicorp_vault",
        auth_config={"vault_auth_type": "token", "vault_addr": "https://vault.example", "vault_token": KEY},
        secret_path="secret/data/openai",
    )
    expect(created.object, "secret-reference")
    listed = portkey.get(path="/secret-references?page_size=5").json()
    expect(listed["total"], 1)
    portkey.put(path="/secret-references/vault", body={"secret_key": "api_key"})
    read = portkey.get(path="/secret-references/vault").json()
    expect(read["secret_key"], "api_key")
    expect(read["auth_config"]["masked_vault_token"], "sk*****789")


@case("integrations")
def _():
    mappings = [{"target_field": "key", "secret_reference_id": "vault"}]
    created = portkey.integrations.create(
        name="Main", slug="main", ai_provider_id="openai", secret_mappings=mappings, description="of a test"
    )
    expect(created.slug, "main")
    portkey.integrations.create(name="Keyed", slug="keyed", ai_provider_id="openai", key=KEY)
    expect(slugs(portkey.integrations.list()), ["keyed", "main"])
    expect(slugs(portkey.integrations.list(type="organisation", current_page=0, page_size=1)), ["keyed"])
    portkey.integrations.update(slug="main", configurations={"openai_project": "proj"})
    read = portkey.integrations.retrieve(slug="main")
    expect(read.configurations, {"openai_project": "proj"})
    expect(read["secret_mappings"][0]["secret_reference_id"], "vault")
    expect(portkey.integrations.retrieve(slug="keyed").masked_key, "sk*****789")
    refused(lambda: portkey.integrations.create(name="n", ai_provider_id="openai"), "key: is missing")


@case("workspaces of an integration")
def _():
    portkey.integrations.workspaces.update(
        slug="main",
        # Without limits: the API has lists of them, and this SDK reads none.
        workspaces=[{"id": made["Team A"], "enabled": True}],
        global_workspace_access={"enabled": False},
        override_existing_workspaces_access=False,
    )
    listed = portkey.integrations.workspaces.list(slug="main")
    expect([(row.id, row.enabled) for row in listed.workspaces], [(made["Team A"], True)])
    # The provider that came with it.
    expect(slugs(portkey.providers.list(workspace_id=made["Team A"])), ["main"])


@case("models of an integration")
def _():
    models = [{"slug": "gpt-4o", "enabled": True}, {"slug": "mine", "enabled": True, "is_custom": True}]
    portkey.integrations.models.update(slug="main", allow_all_models=False, models=models)
    expect(slugs_of_models(), ["gpt-4o", "mine"])
    portkey.integrations.models.delete(slug="main", slugs="mine")
    expect(slugs_of_models(), ["gpt-4o"])


def slugs_of_models():
    return sorted(model.slug for model in portkey.integrations.models.list(slug="main").models)


@case("providers")
def _():
    created = portkey.providers.create(
        name="First provider",
        slug="first",
        integration_id="main",
        workspace_id=made["Team A"],
        note="of a test",
        usage_limits={"credit_limit": 10, "periodic_reset": "monthly", "alert_threshold": 9},
        expires_at="2036-01-01T00:00:00Z",
    )
    expect(created.slug, "first")
    here = {"workspace_id": made["Team A"]}
    expect(slugs(portkey.providers.list(**here)), ["first", "main"])
    expect(slugs(portkey.providers.list(current_page=1, page_size=1, **here)), ["main"])
    updated = portkey.providers.update(slug="first", name="Renamed", reset_usage=True, **here)
    expect(updated.slug, "first")
    read = portkey.providers.retrieve(slug="first", **here)
    expect((read.name, read.integration_id, read.usage_limits["credit_limit"]), ("Renamed", "main", 10))
    refused(lambda: portkey.integrations.delete(slug="main"), "in use by virtual key first")
    refused(lambda: portkey.providers.retrieve(slug="first", workspace_id=made["Team B"]), "does not exist")
    portkey.providers.delete(slug="first", **here)
    expect(slugs(portkey.providers.list(**here)), ["main"])


@case("virtual keys")
def _():
    created = portkey.virtual_keys.create(
        name="Own", provider="openai", key=KEY, note="of a test", workspace_id=made["Team B"]
    )
    azure = portkey.virtual_keys.create(
        name="Azure",
        provider="azure-openai",
        apiVersion="2024-10-21",
        resourceName="res",
        deploymentName="dep",
        secret_mappings=[{"target_field": "key", "secret_reference_id": "vault", "secret_key": "azure"}],
    )
    expect(created.object, "virtual-key")
    expect(len(portkey.virtual_keys.list(workspace_id=made["Team B"]).data), 2)
    expect(portkey.virtual_keys.list().total, 3)
    read = portkey.virtual_keys.retrieve(slug=azure.slug)
    # The attribute of this name is pydantic's.
    expect(read.model_dump()["model_config"], {"apiVersion": "2024-10-21", "resourceName": "res", "deploymentName": "dep"})
    expect(read.secret_mappings[0]["secret_key"], "azure")
    portkey.virtual_keys.update(
        slug=created.slug, name="Renamed", key=KEY + "0", rate_limits=[{"type": "requests", "unit": "rpm", "value": 5}]
    )
    read = portkey.virtual_keys.retrieve(slug=created.slug)
    expect((read.name, read.key, read.masked_api_key), ("Renamed", "", "sk*****890"))
    expect(read.rate_limits[0]["value"], 5)
    refused(lambda: portkey.delete(path="/secret-references/vault"), "in use by", "integration main", azure.slug)
    for slug in [created.slug, azure.slug]:
        portkey.virtual_keys.delete(slug=slug)


@case("configs and API keys")
def _():
    config = portkey.configs.create(name="Fallback", config={"retry": {"attempts": 2}}, workspace_id=made["Team A"])
    expect(config.slug.startswith("pc-"), True)
    key = portkey.api_keys.create(
        type="workspace", sub_type="service", name="Client", workspace_id=made["Team A"], scopes=["virtual_keys.list"]
    )
    client = Portkey(base_url=f"{BASE_URL}/v1", api_key=key.key, timeout=TIMEOUT_SECS)
    # What the key of a workspace may list is that workspace's.
    expect([row["slug"] for row in client.virtual_keys.list().data], ["main"])
    refused(lambda: client.virtual_keys.retrieve(slug="main"), "enough permissions")
    portkey.api_keys.delete(id=key.id)
    refused(lambda: client.virtual_keys.list(), "Unauthorised")
    portkey.configs.list(workspace_id=made["Team A"])


@case("mcp integrations are refused")
def _():
    mappings = [{"target_field": "configurations.headers", "secret_reference_id": "vault"}]
    options = {"name": "m", "url": "https://mcp.example", "auth_type": "headers", "transport": "http"}
    refused(lambda: portkey.mcp_integrations.create(secret_mappings=mappings, **options), "not possible on MCP")


@case("what was made is removed")
def _():
    for slug in ["main", "keyed"]:
        portkey.integrations.delete(slug=slug)
    portkey.delete(path="/secret-references/vault")
    refused(lambda: portkey.get(path="/secret-references/vault"), "does not exist")
    portkey.admin.workspaces.delete(workspace_id=made["Team B"], name="Team B")


run()
