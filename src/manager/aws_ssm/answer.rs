//! What an answer of the Parameter Store means: a body becomes parameters, or a status and a body a classed failure.
//!
//! Values are decoded straight into buffers that are wiped. In an answer for several names each is found by name or ARN *and*
//! selector; one that cannot be told apart is left to be asked for alone.

use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::name::Asked;
use crate::{
    egress::Answer,
    manager::{FailureClass, FetchError, aws},
    secret::{SecretValue, json::Literal},
};

/// A parameter in one version.
#[derive(Debug)]
pub(super) struct Parameter {
    /// Its value, decrypted.
    pub(super) value: SecretValue,
    /// Counted from 1.
    pub(super) version: u64,
}

/// What came of a call for several names.
#[derive(Debug)]
pub(super) struct Found {
    parameters: Vec<Named>,
    invalid: Vec<String>,
}

#[derive(Debug)]
struct Named {
    name: String,
    arn: Option<String>,
    /// Without the colon.
    selector: Option<String>,
    parameter: Parameter,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct One<'a> {
    #[serde(borrow)]
    parameter: Raw<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Many<'a> {
    #[serde(borrow)]
    parameters: Vec<Raw<'a>>,
    #[serde(default)]
    invalid_parameters: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Raw<'a> {
    name: String,
    #[serde(borrow)]
    value: &'a RawValue,
    version: u64,
    selector: Option<String>,
    #[serde(rename = "ARN")]
    arn: Option<String>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(rename = "__type")]
    code: Option<String>,
    #[serde(alias = "Message")]
    message: Option<String>,
}

/// Passes an answer of 200 and turns every other status into its failure.
pub(super) fn check(answer: Answer) -> Result<Answer, FetchError> {
    if answer.status == StatusCode::OK {
        return Ok(answer);
    }
    let told = serde_json::from_slice::<Failure>(&answer.body).ok();
    let in_header = answer.headers.get("x-amzn-errortype").and_then(|code| code.to_str().ok());
    let code = told.as_ref().and_then(|told| told.code.as_deref()).or(in_header);
    let message = told.as_ref().and_then(|told| told.message.as_deref());
    let mut error = aws::of_answer(answer.status.as_u16(), code, message, &answer.headers);
    // Here it is not the request that names a key but the parameter, and the key is not there for us.
    if error.code.as_deref() == Some("InvalidKeyId") {
        error.class = FailureClass::Denied;
    }
    Err(error)
}

/// The parameter in an answer to `GetParameter`.
pub(super) fn one(body: &[u8]) -> Result<Parameter, FetchError> {
    parse::<One<'_>>(body)?.parameter.named().map(|named| named.parameter)
}

/// The parameters in an answer to `GetParameters`.
pub(super) fn many(body: &[u8]) -> Result<Found, FetchError> {
    let many = parse::<Many<'_>>(body)?;
    let parameters = many.parameters.iter().map(Raw::named).collect::<Result<_, _>>()?;
    Ok(Found { parameters, invalid: many.invalid_parameters })
}

// === impl Found ===

impl Found {
    /// What came of one name; `None` when this answer does not tell.
    pub(super) fn take(&mut self, asked: &Asked) -> Option<Result<Parameter, FetchError>> {
        if self.invalid.contains(&asked.to_string()) {
            return Some(Err(FetchError::new(FailureClass::Gone).with_code("InvalidParameters")));
        }
        let matching = |named: &Named| {
            let is_it = named.name == asked.name || named.arn.as_ref() == Some(&asked.name);
            is_it && named.selector == asked.selector
        };
        let mut found = (0..self.parameters.len()).filter(|index| matching(&self.parameters[*index]));
        match (found.next(), found.next()) {
            (Some(index), None) => Some(Ok(self.parameters.swap_remove(index).parameter)),
            _ => None,
        }
    }
}

// === impl Raw ===

impl Raw<'_> {
    fn named(&self) -> Result<Named, FetchError> {
        let value = Literal::from(self.value).decode().ok_or_else(|| malformed("no_text"))?;
        let selector = self.selector.as_deref().map(|selector| selector.trim_start_matches(':'));
        Ok(Named {
            name: self.name.clone(),
            arn: self.arn.clone(),
            selector: selector.filter(|selector| !selector.is_empty()).map(str::to_owned),
            parameter: Parameter { value: value.into(), version: self.version },
        })
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, FetchError> {
    // The parser's error may quote the answer, so it goes no further.
    serde_json::from_slice(body).map_err(|_| malformed("not_aws"))
}

fn malformed(code: &'static str) -> FetchError {
    FetchError::new(FailureClass::Malformed).with_code(code)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use serde_json::{Value, json};
    use zeroize::Zeroizing;

    use super::*;

    const ARN: &str = "arn:aws:ssm:us-east-1:123456789012:parameter/prod/db";

    fn asked(name: &str, selector: Option<&str>) -> Asked {
        Asked { name: name.to_owned(), selector: selector.map(str::to_owned) }
    }

    fn parameter(name: &str, selector: Option<&str>, version: u64) -> Value {
        let value = format!("v{version} of {name}");
        let mut parameter = json!({"Name": name, "Type": "SecureString", "Value": value, "Version": version,
            "LastModifiedDate": 1.7e9, "ARN": "arn:aws:ssm:us-east-1:123456789012:parameter/x", "DataType": "text"});
        if let Some(selector) = selector {
            parameter["Selector"] = json!(selector);
        }
        parameter
    }

    fn text(parameter: Parameter) -> String {
        parameter.value.expose_str().unwrap().to_owned()
    }

    #[test]
    fn each_name_finds_its_own() {
        let mut shared = parameter("/prod/db", None, 9);
        shared["ARN"] = json!(ARN);
        let body = json!({
            "Parameters": [
                parameter("/b", None, 1), parameter("/a", Some(":2"), 2), parameter("/a", None, 5),
                parameter("/a", Some(":live"), 4), parameter("/twice", None, 1), parameter("/twice", None, 2), shared,
            ],
            "InvalidParameters": ["/absent", "/a:9"],
        });
        let mut found = many(body.to_string().as_bytes()).unwrap();
        #[rustfmt::skip]
        let rows = [
            (asked("/a", None), Some(Ok("v5 of /a"))), (asked("/a", Some("2")), Some(Ok("v2 of /a"))),
            (asked("/a", Some("live")), Some(Ok("v4 of /a"))), (asked("/b", None), Some(Ok("v1 of /b"))),
            (asked(ARN, None), Some(Ok("v9 of /prod/db"))),
            (asked("/absent", None), Some(Err(FailureClass::Gone))), (asked("/a", Some("9")), Some(Err(FailureClass::Gone))),
            (asked("/twice", None), None), (asked("/a", Some("7")), None), (asked("/b", Some("1")), None), (asked("/never", None), None),
        ];
        for (asked, expected) in rows {
            let outcome = found.take(&asked).map(|outcome| outcome.map(text).map_err(|error| error.class));
            assert_eq!(outcome.as_ref().map(|outcome| outcome.as_deref().map_err(|class| *class)), expected, "{asked}");
        }
    }

    #[test]
    fn values_are_taken_as_they_are() {
        let body = br#"{"Parameter":{"Name":"a","Value":"line\n\"\u00e9,b","Version":3,"Type":"StringList"}}"#;
        let parameter = one(body).unwrap();
        assert_eq!((parameter.value.expose_str(), parameter.version), (Some("line\n\"é,b"), 3));
        #[rustfmt::skip]
        let rows = [
            ("<html>", "not_aws"), ("{}", "not_aws"), (r#"{"Parameter":{"Name":"a","Value":7,"Version":1}}"#, "no_text"),
            (r#"{"Parameter":{"Name":"a","Version":1}}"#, "not_aws"), (r#"{"Parameter":{"Name":"a","Value":"x"}}"#, "not_aws"),
        ];
        for (body, code) in rows {
            let error = one(body.as_bytes()).unwrap_err();
            assert_eq!((error.class, error.code.as_deref()), (FailureClass::Malformed, Some(code)), "{body}");
        }
    }

    #[test]
    fn codes_become_classes() {
        use FailureClass::*;
        let answer = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            Answer { status, headers: HeaderMap::new(), body: Zeroizing::new(body.as_bytes().to_vec()) }
        };
        #[rustfmt::skip]
        let rows = [
            (400, r#"{"__type":"ParameterNotFound"}"#, Gone), (400, r#"{"__type":"ParameterVersionNotFound","message":"m"}"#, Gone),
            (400, r#"{"__type":"InvalidKeyId","message":"key is disabled"}"#, Denied),
            (400, r#"{"__type":"AccessDeniedException","Message":"kms:Decrypt"}"#, Denied),
            (400, r#"{"__type":"com.amazonaws.ssm#ThrottlingException","message":"Rate exceeded"}"#, Throttled),
            (400, r#"{"__type":"ExpiredTokenException"}"#, Unauthenticated),
            (400, r#"{"__type":"ValidationException"}"#, Misconfigured),
            (500, r#"{"__type":"InternalServerError"}"#, Unavailable),
            (403, "<html>", Malformed), (503, "", Unavailable),
        ];
        for (status, body, class) in rows {
            assert_eq!(check(answer(status, body)).unwrap_err().class, class, "{status} {body}");
        }
        let mut in_header = answer(400, "{}");
        in_header.headers.insert("x-amzn-errortype", "ParameterNotFound:http://internal.amazon.com/".parse().unwrap());
        assert_eq!(check(in_header).unwrap_err().class, Gone);
    }
}
