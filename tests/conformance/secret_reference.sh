# Of the document on secret references, with a whole access key id; without the prefix, as the self-hosted example has it.
for path in /v1/secret-references /secret-references; do
curl -sS -X POST "$BASE_URL$path" \
-H "x-portkey-api-key: $OWNER_KEY" \
-H "Content-Type: application/json" \
-d '{
    "name": "my-aws-secret",
    "manager_type": "aws_sm",
    "auth_config": {
        "aws_auth_type": "accessKey",
        "aws_access_key_id": "AKIAIOSFODNN7EXAMPLE",
        "aws_secret_access_key": "wJal...",
        "aws_region": "us-east-1"
    },
    "secret_path": "prod/api-keys/openai"
}'
done
