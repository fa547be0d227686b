//! `/admin/workspaces/{name}/users`: ids and roles. Who stands behind an id is known elsewhere.

use std::sync::Arc;

use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{MAX_MEMBERS, PAGE_SIZE, find, save};
use crate::control::{
    Answer, Caller, Control, Refusal, Verb,
    answer::instant,
    fields::{Body as Posted, Fields, Given, Length},
    query::Query,
    store::Object,
};

/// In scopes.
const RESOURCE: &str = "workspace_users";
/// What a member can be.
const ROLES: [&str; 3] = ["admin", "member", "manager"];
/// What a member is, if nobody says.
const ROLE: &str = "member";
/// Longest id of a user, in characters.
const MAX_ID: usize = 255;

/// A member of a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Whatever the directory calls the user.
    pub id: String,
    /// `admin`, `manager` or `member`.
    pub role: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub updated_at: i64,
}

// === impl Member ===

impl Member {
    pub(super) fn new(id: String, at: i64) -> Self {
        Self { id, role: ROLE.to_owned(), created_at: at, updated_at: at }
    }

    pub(super) fn shown(&self, workspace: &Object) -> Value {
        json!({
            "object": "workspace-user",
            "id": self.id,
            "role": self.role,
            "org_role": ROLE,
            "status": "active",
            "workspace_id": workspace.id,
            "created_at": instant(self.created_at),
            "last_updated_at": instant(self.updated_at),
            "scopes": [],
            "settings": null,
        })
    }
}

/// Says what is wrong with `members`; one who is in it twice is in it once.
pub(super) fn check(fields: &mut Fields<'_>, members: &mut Vec<Member>) {
    let wrong = |id: &str| !(1..=MAX_ID).contains(&id.chars().count()) || id.contains(char::is_control);
    if members.iter().any(|member| wrong(&member.id)) {
        fields.fault("users", format_args!("must be ids of 1 to {MAX_ID} characters"));
    }
    let mut seen = std::collections::HashSet::new();
    members.retain(|member| seen.insert(member.id.clone()));
    if members.len() > MAX_MEMBERS {
        fields.fault("users", format_args!("must be {MAX_MEMBERS} at most"));
    }
}

/// `POST /admin/workspaces/{name}/users`: adds members; the role of one who is in already is replaced.
///
/// # Errors
/// [`Refusal`].
pub async fn add(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(name): Path<String>,
    posted: Posted,
) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::Create)?;
    let mut fields = posted.fields()?;
    let mut write = caller.write(&control).await?;
    let (mut object, mut body) = find(&mut write, &caller, &name).await?;
    let rows = fields.objects("users");
    for mut row in fields.require("users", rows).unwrap_or_default() {
        let id = row.text("id", Length(1, MAX_ID));
        let id = row.require("id", id);
        let role = role(&mut row).value().unwrap_or_else(|| ROLE.to_owned());
        fields.absorb(row);
        let Some(id) = id else { continue };
        match body.users.iter_mut().find(|member| member.id == id) {
            Some(member) => (member.role, member.updated_at) = (role, write.at()),
            None => body.users.push(Member { role, ..Member::new(id, write.at()) }),
        }
    }
    check(&mut fields, &mut body.users);
    fields.finish()?;
    save(write, &mut object, &body, fields.names()).await
}

/// `GET /admin/workspaces/{name}/users`.
///
/// # Errors
/// [`Refusal`].
pub async fn list(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(name): Path<String>,
    query: Query,
) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::List)?;
    let page = query.page(PAGE_SIZE.0, PAGE_SIZE.1)?;
    let role = query.word("role", &ROLES)?;
    let email = query.get("email");
    let mut tenant = caller.tenant(&control).await?;
    let (object, body) = find(&mut tenant, &caller, &name).await?;
    let passes = |member: &&Member| {
        role.is_none_or(|role| member.role == role) && email.is_none_or(|email| member.id.eq_ignore_ascii_case(email))
    };
    let members: Vec<_> = body.users.iter().rev().filter(passes).collect();
    let shown = members.iter().skip(page.index.saturating_mul(page.size)).take(page.size);
    Ok(Answer::list(members.len(), shown.map(|member| member.shown(&object)).collect()))
}

/// `GET /admin/workspaces/{name}/users/{user}`.
///
/// # Errors
/// [`Refusal`].
pub async fn read(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path((name, user)): Path<(String, String)>,
) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::Read)?;
    let mut tenant = caller.tenant(&control).await?;
    let (object, body) = find(&mut tenant, &caller, &name).await?;
    let member = body.users.iter().find(|member| member.id == user).ok_or_else(missing)?;
    Ok(Answer::of(member.shown(&object)))
}

/// `PUT /admin/workspaces/{name}/users/{user}`.
///
/// # Errors
/// [`Refusal`].
pub async fn update(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path((name, user)): Path<(String, String)>,
    posted: Posted,
) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::Update)?;
    let mut fields = posted.fields()?;
    let mut write = caller.write(&control).await?;
    let (mut object, mut body) = find(&mut write, &caller, &name).await?;
    let at = write.at();
    let member = body.users.iter_mut().find(|member| member.id == user).ok_or_else(missing)?;
    let role = role(&mut fields);
    if let Some(role) = fields.require("role", role) {
        (member.role, member.updated_at) = (role, at);
    }
    fields.finish()?;
    save(write, &mut object, &body, fields.names()).await
}

/// `DELETE /admin/workspaces/{name}/users/{user}`.
///
/// # Errors
/// [`Refusal`].
pub async fn remove(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path((name, user)): Path<(String, String)>,
) -> Result<Answer, Refusal> {
    caller.may(RESOURCE, Verb::Delete)?;
    let mut write = caller.write(&control).await?;
    let (mut object, mut body) = find(&mut write, &caller, &name).await?;
    let before = body.users.len();
    body.users.retain(|member| member.id != user);
    if body.users.len() == before {
        return Err(missing());
    }
    save(write, &mut object, &body, vec!["users".to_owned()]).await
}

fn role(fields: &mut Fields<'_>) -> Given<String> {
    let role = fields.text("role", Length(1, 64));
    match &role {
        Given::Value(word) if !ROLES.contains(&word.as_str()) => {
            fields.fault("role", format_args!("must be one of {}", ROLES.join(", ")));
            Given::Absent
        }
        _ => role,
    }
}

fn missing() -> Refusal {
    Refusal::not_found("member")
}
