//! The causes: what stands in OpenBao, what the reference says, what is broken, and what comes of it.

use serde_json::{Value, json};

/// One cause, and what comes of it.
pub struct Row {
    pub code: &'static str,
    /// In words, for the message of a test that fails.
    pub cause: &'static str,
    /// What stands in OpenBao, `null` = nothing: at `secret/data/row-N`, where an ordinary reference reads `api_key`.
    pub secret: &'static str,
    /// What is different from an ordinary reference.
    pub reference: fn(&mut Value),
    /// What is broken while the row is asked.
    pub broken: Broken,
    pub message: &'static str,
    /// Fields of the log line that says why: a part of each value. Each also names reference and manager.
    pub log: &'static [(&'static str, &'static str)],
}

/// What does not work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    Nothing,
    /// The secret's current version is deleted.
    Deleted,
    /// The vault is sealed.
    Sealed,
    /// A quota of the vault is used up.
    UsedUp,
    /// The vault stands still: connections open, nothing is answered.
    Frozen,
    /// The gateway stands still.
    GatewayFrozen,
    /// There is no gateway any more.
    GatewayDead,
    /// There is no vault any more.
    Dead,
}

const GOOD: &str = r#"{"api_key": "sk-good"}"#;
const MALFORMED: &str = "a secret does not have the shape that is needed";
const MISCONFIGURED: &str = "a secret reference is misconfigured";
const UNAUTHENTICATED: &str = "a secret manager refused the log-in";
const BY_TOKEN: (&str, &str) = ("identity", "token at http://127.0.0.1:");

/// Nothing is wrong.
const ORDINARY: Row =
    Row { code: "", cause: "", secret: GOOD, reference: |_| {}, broken: Broken::Nothing, message: "", log: &[] };

/// What breaks for good stands last.
pub const ROWS: &[Row] = &[
    Row {
        code: "secret_not_found",
        cause: "nothing was ever written there",
        secret: "null",
        message: "a secret does not exist",
        log: &[("class", "gone"), ("manager_code", "404"), BY_TOKEN],
        ..ORDINARY
    },
    Row {
        code: "secret_not_found",
        cause: "the version was deleted",
        broken: Broken::Deleted,
        message: "a secret does not exist",
        log: &[("class", "gone"), ("manager_code", "deleted"), BY_TOKEN],
        ..ORDINARY
    },
    Row {
        code: "secret_not_found",
        cause: "a version that does not exist yet",
        reference: |row| row["secret_path"] = json!(format!("{}?version=9", row["secret_path"].as_str().unwrap())),
        message: "a secret does not exist",
        log: &[("class", "gone"), BY_TOKEN],
        ..ORDINARY
    },
    Row {
        code: "secret_denied",
        cause: "the policy says no",
        reference: |row| row["secret_path"] = json!("secret/data/forbidden"),
        message: "a secret may not be read",
        log: &[("class", "denied"), ("manager_code", "403"), BY_TOKEN],
        ..ORDINARY
    },
    Row {
        code: "manager_unauthenticated",
        cause: "a token that was never issued",
        reference: |row| row["auth_config"]["vault_token"] = json!("s.never-issued"),
        message: UNAUTHENTICATED,
        log: &[("class", "unauthenticated"), ("manager_code", "token_dead"), BY_TOKEN],
        ..ORDINARY
    },
    Row {
        code: "manager_unauthenticated",
        cause: "a wrong secret id",
        reference: |row| {
            let addr = row["auth_config"]["vault_addr"].clone();
            row["auth_config"] = json!({
                "vault_auth_type": "approle", "vault_addr": addr, "vault_role_id": "sidekey-role", "vault_secret_id": "wrong",
            });
        },
        message: UNAUTHENTICATED,
        log: &[
            ("class", "unauthenticated"),
            ("manager_code", "400"),
            ("identity", "approle sidekey-role on approle at"),
        ],
        ..ORDINARY
    },
    Row {
        code: "secret_malformed",
        cause: "the key is not in the secret",
        secret: r#"{"apikey": "sk-1"}"#,
        message: MALFORMED,
        log: &[("class", "malformed"), ("error", "no such key"), BY_TOKEN],
        ..ORDINARY
    },
    Row {
        code: "secret_malformed",
        cause: "the value is empty",
        secret: r#"{"api_key": ""}"#,
        message: MALFORMED,
        log: &[("class", "malformed"), ("error", "the value is empty"), BY_TOKEN],
        ..ORDINARY
    },
    Row {
        code: "secret_malformed",
        cause: "the value is null",
        secret: r#"{"api_key": null}"#,
        message: MALFORMED,
        log: &[("class", "malformed"), ("error", "the value is null"), BY_TOKEN],
        ..ORDINARY
    },
    Row {
        code: "secret_malformed",
        cause: "a map, and nobody says which key",
        reference: |row| row["secret_key"] = json!(null),
        message: MALFORMED,
        log: &[("class", "malformed"), ("error", "needs a secret_key"), BY_TOKEN],
        ..ORDINARY
    },
    Row {
        code: "secret_malformed",
        cause: "a value of two lines",
        secret: r#"{"api_key": "sk-1\r\nx-evil: 1"}"#,
        message: MALFORMED,
        log: &[("class", "malformed")],
        ..ORDINARY
    },
    Row {
        code: "secret_malformed",
        cause: "a file that is no JSON",
        reference: |row| {
            row["manager_type"] = json!("file");
            row["auth_config"] = json!({});
            row["secret_path"] = json!("plain");
        },
        message: MALFORMED,
        log: &[("manager", "file"), ("class", "malformed"), ("error", "is not JSON")],
        ..ORDINARY
    },
    Row {
        code: "secret_not_found",
        cause: "a file that is not there",
        reference: |row| {
            row["manager_type"] = json!("file");
            row["auth_config"] = json!({});
            row["secret_path"] = json!("absent");
        },
        message: "a secret does not exist",
        log: &[("manager", "file"), ("class", "gone")],
        ..ORDINARY
    },
    Row {
        code: "reference_misconfigured",
        cause: "an address of the metadata service",
        reference: |row| row["auth_config"]["vault_addr"] = json!("http://169.254.169.254"),
        message: MISCONFIGURED,
        log: &[("class", "misconfigured"), ("reason", "has a fault of its own")],
        ..ORDINARY
    },
    Row {
        code: "reference_misconfigured",
        cause: "a private address that the operator has not opened",
        reference: |row| row["auth_config"]["vault_addr"] = json!("https://10.0.0.1:8200"),
        message: MISCONFIGURED,
        log: &[("class", "misconfigured"), ("reason", "has a fault of its own")],
        ..ORDINARY
    },
    Row {
        code: "reference_misconfigured",
        cause: "a public name that leads to the metadata service",
        reference: |row| row["auth_config"]["vault_addr"] = json!("https://rebound.test"),
        message: MISCONFIGURED,
        log: &[
            ("class", "misconfigured"),
            ("manager_code", "address_refused"),
            ("identity", "token at https://rebound.test"),
        ],
        ..ORDINARY
    },
    Row {
        code: "reference_misconfigured",
        cause: "a version of a secret that has none",
        reference: |row| row["secret_path"] = json!("kv1/plain?version=2"),
        message: MISCONFIGURED,
        log: &[("class", "misconfigured"), ("manager_code", "kv1_version"), BY_TOKEN],
        ..ORDINARY
    },
    Row {
        code: "manager_throttled",
        cause: "the quota is used up",
        // Of its own: an identity that was told so is left alone for a while.
        reference: |row| row["auth_config"]["vault_kv_version"] = json!(2),
        broken: Broken::UsedUp,
        message: "a secret manager limits requests",
        log: &[("class", "throttled"), ("manager_code", "429"), BY_TOKEN],
        ..ORDINARY
    },
    Row {
        code: "manager_unavailable",
        cause: "the vault is sealed",
        broken: Broken::Sealed,
        message: "a secret manager is unavailable",
        log: &[("class", "unavailable"), ("manager_code", "503"), BY_TOKEN],
        ..ORDINARY
    },
    Row {
        code: "manager_timeout",
        cause: "the vault stands still",
        broken: Broken::Frozen,
        message: "a secret manager did not answer in time",
        log: &[("class", "timeout"), ("manager_code", "deadline"), BY_TOKEN],
        ..ORDINARY
    },
    Row {
        code: "upstream_timeout",
        cause: "the gateway stands still",
        broken: Broken::GatewayFrozen,
        message: "the gateway did not answer in time",
        log: &[("error", "did not answer within 1 s")],
        ..ORDINARY
    },
    Row {
        code: "upstream_unreachable",
        cause: "the gateway was killed",
        broken: Broken::GatewayDead,
        message: "the gateway cannot be reached",
        log: &[("error", "refused")],
        ..ORDINARY
    },
    Row {
        code: "manager_unavailable",
        cause: "the vault was killed",
        broken: Broken::Dead,
        message: "a secret manager is unavailable",
        log: &[("class", "unavailable"), ("manager_code", "connect"), BY_TOKEN],
        ..ORDINARY
    },
];
