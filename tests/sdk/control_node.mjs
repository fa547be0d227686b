// portkey-ai for Node, unmodified, with a control plane of Sidekey as its base URL. See tests/real/control_sdk.rs.

import { Portkey } from 'portkey-ai';

import { BASE_URL, CLIENT_KEY, TIMEOUT_MS, expect, run, test } from './cases.mjs';

const KEY = 'sk-canary-of-the-sdk-0123456789';
const portkey = new Portkey({ baseURL: `${BASE_URL}/v1`, apiKey: CLIENT_KEY, timeout: TIMEOUT_MS });
const made = {};

const slugs = (listed) => listed.data.map((row) => row.slug).sort();

/** Throws unless `call` is refused, for a reason that holds all of `parts`. */
async function refused(call, ...parts) {
  let error;
  try {
    await call();
  } catch (caught) {
    error = `${caught?.message ?? ''} ${JSON.stringify(caught)}`;
  }
  if (error === undefined) throw new Error('was not refused');
  for (const part of parts) {
    if (!error.includes(part)) throw new Error(`${part} is not in ${error}`);
  }
}

test('workspaces', async () => {
  for (const name of ['Team A', 'Team B']) {
    made[name] = (await portkey.admin.workspaces.create({ name, description: 'of a test' })).id;
  }
  expect((await portkey.admin.workspaces.list({ current_page: 0, page_size: 10 })).total, 2);
  await portkey.admin.workspaces.update({ workspaceId: made['Team A'], description: 'changed' });
  expect((await portkey.admin.workspaces.retrieve({ workspaceId: made['Team A'] })).description, 'changed');
});

test('secret references by generic calls', async () => {
  const created = await portkey.post('/secret-references', {
    name: 'Vault',
    slug: 'vault',
    manager_type: 'hashicorp_vault',
    auth_config: { vault_auth_type: 'token', vault_addr: 'https://vault.example', vault_token: KEY },
    secret_path: 'secret/data/openai',
  });
  expect(created.object, 'secret-reference');
  expect((await portkey.get('/secret-references?page_size=5')).total, 1);
  await portkey.put('/secret-references/vault', { secret_key: 'api_key' });
  const read = await portkey.get('/secret-references/vault');
  expect(read.secret_key, 'api_key');
  expect(read.auth_config.masked_vault_token, 'sk*****789');
});

test('integrations', async () => {
  const secret_mappings = [{ target_field: 'key', secret_reference_id: 'vault' }];
  const created = await portkey.integrations.create({ name: 'Main', slug: 'main', ai_provider_id: 'openai', secret_mappings });
  expect(created.slug, 'main');
  await portkey.integrations.create({ name: 'Keyed', slug: 'keyed', ai_provider_id: 'openai', key: KEY });
  expect(slugs(await portkey.integrations.list({})), ['keyed', 'main']);
  expect(slugs(await portkey.integrations.list({ current_page: 0, page_size: 1 })), ['keyed']);
  await portkey.integrations.update({ slug: 'main', configurations: { openai_project: 'proj' } });
  const read = await portkey.integrations.retrieve({ slug: 'main' });
  expect(read.configurations, { openai_project: 'proj' });
  expect(read.secret_mappings[0].secret_reference_id, 'vault');
  expect((await portkey.integrations.retrieve({ slug: 'keyed' })).masked_key, 'sk*****789');
  await refused(() => portkey.integrations.create({ name: 'n', ai_provider_id: 'openai' }), 'key: is missing');
});

test('workspaces of an integration', async () => {
  await portkey.integrations.workspaces.update({
    slug: 'main',
    workspaces: [{ id: made['Team A'], enabled: true, usage_limits: [{ credit_limit: 10 }] }],
  });
  const listed = await portkey.integrations.workspaces.list({ slug: 'main' });
  expect(listed.workspaces.map((row) => [row.id, row.enabled]), [[made['Team A'], true]]);
  // The provider that came with it.
  expect(slugs(await portkey.providers.list({ workspace_id: made['Team A'] })), ['main']);
});

test('models of an integration', async () => {
  const models = [{ slug: 'gpt-4o', enabled: true }, { slug: 'mine', enabled: true, is_custom: true }];
  await portkey.integrations.models.update({ slug: 'main', allow_all_models: false, models });
  const listed = async () => (await portkey.integrations.models.list({ slug: 'main' })).models.map((model) => model.slug);
  expect(await listed(), ['gpt-4o', 'mine']);
  await portkey.integrations.models.delete({ slug: 'main', slugs: 'mine' });
  expect(await listed(), ['gpt-4o']);
});

test('providers', async () => {
  const workspace_id = made['Team A'];
  const created = await portkey.providers.create({
    name: 'First provider',
    slug: 'first',
    integration_id: 'main',
    workspace_id,
    note: 'of a test',
    usage_limits: { credit_limit: 10, periodic_reset: 'monthly', alert_threshold: 9 },
  });
  expect(created.slug, 'first');
  expect(slugs(await portkey.providers.list({ workspace_id })), ['first', 'main']);
  const updated = await portkey.providers.update({ slug: 'first', workspace_id, name: 'Renamed', reset_usage: true });
  expect(updated.slug, 'first');
  const read = await portkey.providers.retrieve({ slug: 'first', workspace_id });
  expect([read.name, read.integration_id, read.usage_limits.credit_limit], ['Renamed', 'main', 10]);
  await refused(() => portkey.integrations.delete({ slug: 'main' }), 'in use by virtual key first');
  await refused(() => portkey.providers.retrieve({ slug: 'first', workspace_id: made['Team B'] }), 'does not exist');
  await portkey.providers.delete({ slug: 'first', workspace_id });
  expect(slugs(await portkey.providers.list({ workspace_id })), ['main']);
});

test('virtual keys', async () => {
  const created = await portkey.virtualKeys.create({
    name: 'Own',
    provider: 'openai',
    key: KEY,
    note: 'of a test',
    workspace_id: made['Team B'],
  });
  const azure = await portkey.virtualKeys.create({
    name: 'Azure',
    provider: 'azure-openai',
    resourceName: 'res',
    deploymentConfig: [{ apiVersion: '2024-10-21', deploymentName: 'dep', alias: 'a', is_default: true }],
    secret_mappings: [{ target_field: 'key', secret_reference_id: 'vault', secret_key: 'azure' }],
  });
  expect(created.object, 'virtual-key');
  expect((await portkey.virtualKeys.list({ current_page: 0, page_size: 50 })).total, 3);
  const read = await portkey.virtualKeys.retrieve({ slug: azure.slug });
  expect(read.model_config.deploymentConfig[0].deploymentName, 'dep');
  expect(read.secret_mappings[0].secret_key, 'azure');
  await portkey.virtualKeys.update({ slug: created.slug, name: 'Renamed', key: `${KEY}0` });
  const renamed = await portkey.virtualKeys.retrieve({ slug: created.slug });
  expect([renamed.name, renamed.key, renamed.masked_api_key], ['Renamed', '', 'sk*****890']);
  await refused(() => portkey.delete('/secret-references/vault'), 'in use by', 'integration main', azure.slug);
  for (const { slug } of [created, azure]) await portkey.virtualKeys.delete({ slug });
});

test('configs and API keys', async () => {
  const config = await portkey.configs.create({ name: 'Retry', config: { retry: { attempts: 2 } }, workspace_id: made['Team A'] });
  expect(config.slug.startsWith('pc-'), true);
  const key = await portkey.apiKeys.create({
    type: 'workspace',
    'sub-type': 'service',
    name: 'Client',
    workspace_id: made['Team A'],
    scopes: ['virtual_keys.list'],
  });
  const client = new Portkey({ baseURL: `${BASE_URL}/v1`, apiKey: key.key, timeout: TIMEOUT_MS });
  // What the key of a workspace may list is that workspace's.
  expect(slugs(await client.virtualKeys.list({})), ['main']);
  await refused(() => client.virtualKeys.retrieve({ slug: 'main' }), 'enough permissions');
  await portkey.apiKeys.delete({ id: key.id });
  await refused(() => client.virtualKeys.list({}), 'Unauthorised');
});

test('what was made is removed', async () => {
  for (const slug of ['main', 'keyed']) await portkey.integrations.delete({ slug });
  await portkey.delete('/secret-references/vault');
  await refused(() => portkey.get('/secret-references/vault'), 'does not exist');
  await portkey.admin.workspaces.delete({ workspaceId: made['Team B'], name: 'Team B' });
});

await run();
