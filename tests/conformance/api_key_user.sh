# Of the document on API keys.
curl -sS -X POST "$BASE_URL/v1/api-keys/workspace/user" \
  -H "x-portkey-api-key: $OWNER_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "name":"User API Key",
    "type":"workspace",
    "sub-type":"user",
    "workspace_id":"ws-team",
    "user_id":"c3d4e5f6-a7b8-6c7d-0e1f-2a3b4c5d6e7f",
    "scopes":[
      "completions.write",
      "logs.view"
    ]
  }'
