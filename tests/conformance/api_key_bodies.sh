# The three example bodies of the document on API keys: basic, rotation, usage limits.
for body in \
  '{"name":"API_KEY_NAME_0909","scopes":["completions.write"]}' \
  '{"name":"Auto-rotating Key","scopes":["completions.write"],"rotation_policy":{"rotation_period":"monthly","key_transition_period_ms":3600000}}' \
  '{"name":"Budget-limited Key","scopes":["completions.write"],"usage_limits":{"type":"cost","credit_limit":100,"alert_threshold":80,"periodic_reset":"monthly"},"alert_emails":["admin@example.com"]}'
do
curl -sS -X POST "$BASE_URL/v1/api-keys/organisation/service" \
  -H "x-portkey-api-key: $OWNER_KEY" \
  -H "Content-Type: application/json" \
  -d "$body"
done
