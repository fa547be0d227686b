"""Each identity of docs/kubernetes.md: the token, variables and files that the chart gives are the ones Sidekey logs in with.

No cloud is reached from a pod here: what is seen is who Sidekey would be, and that only the network is missing. Vault's login with a
token of a real API server is in cluster.py, the clouds' protocols are in tests/real.
"""
import contextlib
import json

import yaml

from bench import render_values
from kubelet import Pod, until
from pod import files

# As long as a token has three parts, nobody looks into it before it is sent.
JWT = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzaWRla2V5In0.c2lnbmF0dXJl"
PATIENCE = {"timeout_secs": 1, "deadline_secs": 2, "login_deadline_secs": 4}
REFERENCES = {
    "vault": ("hashicorp_vault", {"vault_auth_type": "kubernetes", "vault_addr": "https://vault.vault.svc:8200", "vault_role": "sidekey"}, "secret/data/a"),
    "aws": ("aws_sm", {"aws_auth_type": "serviceRole", "aws_region": "eu-west-1"}, "a"),
    "azure": ("azure_kv", {"azure_auth_mode": "default", "azure_vault_url": "https://acme.vault.azure.net"}, "a"),
    "gcp": ("gcp_sm", {"gcp_auth_type": "workloadIdentity"}, "projects/acme/secrets/a"),
}


def resolved(case, names):
    """What `sidekey check --resolve` says in the running container, by reference."""
    status, output = render_values({"extraVolumes": [], "extraVolumeMounts": [], "config": {"prewarm": "none", "managers": PATIENCE}}, base=case)
    assert status == 0, output
    rows = [{"id": name, "slug": name, "manager_type": manager, "auth_config": auth, "secret_path": path, "status": "active"}
            for name, (manager, auth, path) in REFERENCES.items() if name in names]
    text = json.dumps({"schema_version": 1, "version": 1, "organisation_id": "acme", "secret_references": rows})
    content = {**files(), "entities": {"all.json": text, "snapshot.json": text}, "tokens": lambda audience: JWT}
    with contextlib.closing(Pod([one for one in yaml.safe_load_all(output) if one], content)) as pod:
        sidekey = pod["sidekey"]
        sidekey.start()
        until("it is healthy", lambda: sidekey.probe("livenessProbe"), dump=pod.logs)
        said = sidekey.exec(["/image/sidekey", "check", "--config", "/etc/sidekey/config/sidekey.yaml", "--resolve"])[1]
        assert JWT not in said + pod.logs()
    return {line.split()[0]: line for line in said.splitlines() if line.split() and line.split()[0] in names}


def test_each_identity_is_found_where_the_chart_puts_it():
    for case, expected in {
        "everything": {
            "vault": "kubernetes role sidekey on kubernetes at https://vault.vault.svc:8200",
            "aws": "serviceRole by web identity arn:aws:iam::123456789012:role/sidekey",
            "azure": "workload identity 11111111-2222-4333-8444-555555555555 of 66666666-7777-4888-8999-000000000000",
            "gcp": "workload identity of /etc/sidekey/config/gcp-federation.json",
        },
        "pod-identity": {"aws": "serviceRole by EKS Pod Identity"},
    }.items():
        seen = resolved(case, list(expected))
        for reference, identity in expected.items():
            line = seen[reference]
            assert identity in line, f"{case}: {line}"
            assert "unavailable" in line or "timeout" in line, f"{case}: nothing but the network is missing: {line}"
