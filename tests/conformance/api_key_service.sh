# Of the document on API keys; without the prefix, as the self-hosted example has it.
for path in /v1/api-keys/organisation/service /api-keys/organisation/service; do
curl -sS -X POST "$BASE_URL$path" \
  -H "x-portkey-api-key: $OWNER_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "name":"API_KEY_NAME_0909",
    "type":"organisation",
    "sub-type":"service",
    "workspace_id":"ws-team",
    "scopes":[
      "logs.export",
      "logs.list",
      "logs.view",
      "configs.create",
      "configs.update",
      "configs.delete",
      "configs.read",
      "configs.list",
      "virtual_keys.create",
      "virtual_keys.update",
      "virtual_keys.delete",
      "virtual_keys.read",
      "virtual_keys.list",
      "virtual_keys.copy"
    ]
  }'
done
