// portkey-ai for Node, unmodified, drives the control plane: every resource that it knows, secret references by generic calls.
//
// Ends with status 0 and the line `done`. BASE_URL is where the control plane listens, OWNER_KEY may do everything.

import assert from 'node:assert/strict';
import { Portkey } from 'portkey-ai';

const baseURL = `${process.env.BASE_URL}/v1`;
const client = new Portkey({ baseURL, apiKey: process.env.OWNER_KEY });

// Rejects unless `call` finds nothing.
const gone = (call) => assert.rejects(call, (error) => error.status === 404);

// Workspaces and their users.
const team = await client.admin.workspaces.create({ name: 'Team', description: 'of Node', defaults: { metadata: { team: 'a' } } });
assert.equal((await client.admin.workspaces.retrieve({ workspaceId: team.id })).name, 'Team');
await client.admin.workspaces.update({ workspaceId: team.id, description: 'changed' });
assert.equal((await client.admin.workspaces.list({ name: 'Team' })).total, 1);
await client.admin.workspaces.users.create({ workspaceId: team.id, users: [{ id: 'u-2', role: 'member' }] });
assert.equal((await client.admin.workspaces.users.list({ workspaceId: team.id })).total, 1);

// Secret references, which the SDK does not know.
const reference = await client.post('/secret-references', {
  name: 'OpenAI key',
  slug: 'node-openai',
  manager_type: 'hashicorp_vault',
  auth_config: { vault_auth_type: 'token', vault_addr: 'https://vault.example', vault_token: 'hvs.canary-of-node' },
  secret_path: 'secret/data/openai',
});
assert.equal(reference.object, 'secret-reference');
await client.put('/secret-references/node-openai', { description: 'changed' });
const shownReference = await client.get('/secret-references/node-openai');
assert.equal(shownReference.description, 'changed');
assert.equal(shownReference.auth_config.masked_vault_token, 'hv*****ode');

// Integrations, providers, virtual keys.
await client.integrations.create({
  name: 'OpenAI',
  ai_provider_id: 'openai',
  slug: 'node-openai-main',
  secret_mappings: [{ target_field: 'key', secret_reference_id: 'node-openai' }],
});
await client.integrations.update({ slug: 'node-openai-main', description: 'changed' });
const integration = await client.integrations.retrieve({ slug: 'node-openai-main' });
assert.equal(integration.secret_mappings[0].target_field, 'key');
assert.equal((await client.integrations.list({})).total, 1);
await client.integrations.workspaces.update({ slug: 'node-openai-main', workspaces: [{ id: team.id, enabled: true }] });
await client.providers.create({ name: 'Of the team', integration_id: 'node-openai-main', workspace_id: team.id, slug: 'node-vk' });
assert.equal((await client.providers.retrieve({ slug: 'node-vk', workspace_id: team.id })).name, 'Of the team');
await client.providers.delete({ slug: 'node-vk', workspace_id: team.id });
const key = await client.virtualKeys.create({ name: 'Alone', provider: 'openai', key: 'sk-canary-of-node-key', workspace_id: team.id });
await client.virtualKeys.update({ slug: key.slug, name: 'Renamed' });
assert.equal((await client.virtualKeys.retrieve({ slug: key.slug })).name, 'Renamed');
await client.virtualKeys.delete({ slug: key.slug });

// Configs.
const config = await client.configs.create({ name: 'Retry', config: { retry: { attempts: 3 } }, isDefault: 1, workspace_id: team.id });
assert.match(config.slug, /^pc-retry-/);
const changed = await client.configs.update({ slug: config.slug, name: 'Retry more', config: { retry: { attempts: 5 } } });
assert.notEqual(changed.version_id, config.version_id);
assert.equal((await client.configs.retrieve({ slug: config.slug })).config, '{"retry":{"attempts":5}}');
assert.equal((await client.configs.list({ workspace_id: team.id })).total, 1);

// API keys: the examples of the documentation.
const service = await client.apiKeys.create({
  name: 'API_KEY_NAME_0909',
  type: 'organisation',
  'sub-type': 'service',
  workspace_id: team.id,
  scopes: ['logs.export', 'configs.read', 'configs.list', 'virtual_keys.create', 'virtual_keys.copy'],
});
assert.equal(service.object, 'api-key');
const user = await client.apiKeys.create({
  name: 'User API Key',
  type: 'workspace',
  'sub-type': 'user',
  workspace_id: team.id,
  user_id: 'u-2',
  scopes: ['completions.write', 'logs.view'],
  usage_limits: { type: 'cost', credit_limit: 100, alert_threshold: 80, periodic_reset: 'monthly' },
  rotation_policy: { rotation_period: 'weekly', key_transition_period_ms: 3600000 },
});
await client.apiKeys.update({ id: user.id, name: 'Renamed' });
const shownUser = await client.apiKeys.retrieve({ id: user.id });
assert.equal(shownUser.name, 'Renamed');
assert.equal(shownUser.type, 'workspace-user');
assert.equal((await client.apiKeys.list({ workspace_id: team.id, page_size: 1, current_page: 1 })).total, 2);
const rotated = await client.post(`/api-keys/${user.id}/rotate`, { key_transition_period_ms: 3600000 });
assert.ok(rotated.key !== user.key && rotated.key_transition_expires_at);
// The key of the team reads the team's configs.
const teamClient = new Portkey({ baseURL, apiKey: service.key });
assert.equal((await teamClient.configs.list({})).total, 1);

// The end of it all.
await client.apiKeys.delete({ id: user.id });
await gone(() => client.apiKeys.retrieve({ id: user.id }));
await client.apiKeys.delete({ id: service.id });
await client.configs.delete({ slug: config.slug });
await client.integrations.workspaces.update({ slug: 'node-openai-main', workspaces: [{ id: team.id, enabled: false }] });
await client.integrations.delete({ slug: 'node-openai-main' });
await client.delete('/secret-references/node-openai');
await client.admin.workspaces.delete({ workspaceId: team.id, name: 'Team' });
await gone(() => client.admin.workspaces.retrieve({ workspaceId: team.id }));
console.log('done');
