//! What tokens cost: a list of prices by model, built in and replaceable.
//!
//! Prices are dollars for a million tokens, kept as whole pico-dollars for one, so that sums do not round; an answer is rounded
//! up to a nano-dollar. A model that is not listed costs what `unknown` says, which every list has to say.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use crate::dialect::usage::Tokens;

/// The list that is built in.
const DEFAULT: &str = include_str!("../../config/prices.yaml");
/// Largest list, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Dearest price, in dollars for a million tokens or for one request.
const MAX_DOLLARS: f64 = 1e6;
/// Pico-dollars for one token at a dollar for a million; also nano-dollars and their thousand.
const PICO_OF_MILLIONTH: f64 = 1e6;
const PICO_OF_DOLLAR: f64 = 1e12;
const PICO_OF_NANO: u128 = 1000;

/// The prices in force.
#[derive(Debug)]
pub struct Prices {
    /// Where they are read from; `None` = they are built in.
    source: Option<Source>,
    current: ArcSwap<PriceList>,
}

/// Why a list cannot be used. Names the file and what is wrong, and quotes nothing but names of models.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    /// It cannot be read.
    #[error("{} cannot be read", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no list of prices.
    #[error("{} {reason}", file.display())]
    Invalid {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Debug)]
struct Source {
    file: PathBuf,
    seen: Mutex<[u8; 32]>,
}

#[derive(Debug, PartialEq)]
struct PriceList {
    as_of: String,
    unknown: Price,
    models: HashMap<String, Price>,
}

/// Of one model, in pico-dollars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Price {
    input: u64,
    cached: u64,
    written: u64,
    output: u64,
    request: u64,
}

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawList {
    as_of: String,
    unknown: RawPrice,
    models: HashMap<String, RawPrice>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPrice {
    input: f64,
    output: f64,
    cached: Option<f64>,
    written: Option<f64>,
    request: Option<f64>,
}

// === impl Prices ===

impl Prices {
    /// Reads `file`, or takes the list that is built in.
    ///
    /// # Errors
    /// [`PriceError`] when it cannot be read or used.
    pub fn load(file: Option<PathBuf>) -> Result<Self, PriceError> {
        let (list, source) = match file {
            Some(file) => {
                let text = read(&file)?;
                let list = PriceList::parse(&file, &text)?;
                (list, Some(Source { seen: Mutex::new(digest(&text)), file }))
            }
            None => (PriceList::parse(Path::new("the built-in price list"), DEFAULT)?, None),
        };
        Ok(Self { source, current: ArcSwap::from_pointee(list) })
    }

    /// Reads the file again, if it changed; logs what became of it.
    pub fn refresh(&self) {
        let Some(Source { file, seen }) = &self.source else { return };
        let parsed = read(file).and_then(|text| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let now = digest(&text);
            if *seen == now {
                return Ok(None);
            }
            // Remembered even if it cannot be used, so that one fault is logged once.
            *seen = now;
            PriceList::parse(file, &text).map(Some)
        });
        match parsed {
            Ok(None) => {}
            Ok(Some(list)) => {
                info!(?file, as_of = list.as_of, models = list.models.len(), "Prices were reloaded.");
                self.current.store(Arc::new(list));
            }
            Err(error) => warn!(?file, %error, "Prices cannot be used, the last ones stay."),
        }
    }

    /// What an answer costs, in nano-dollars, and whether its model is listed: by the name in the answer, else by that in the
    /// request.
    pub fn cost(&self, answered: Option<&str>, asked: Option<&str>, tokens: &Tokens) -> (u64, bool) {
        let list = self.current.load();
        let listed = [answered, asked].into_iter().flatten().find_map(|model| list.price(model));
        (listed.unwrap_or(&list.unknown).of(tokens), listed.is_some())
    }
}

// === impl PriceList ===

impl PriceList {
    fn parse(file: &Path, text: &str) -> Result<Self, PriceError> {
        let invalid = |reason| PriceError::Invalid { file: file.to_owned(), reason };
        let options = serde_saphyr::options! { with_snippet: false };
        let raw: RawList = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            invalid(format!("is no list of prices (line {})", error.location().map_or(0, |at| at.line())))
        })?;
        let price = |name: &str, raw: &RawPrice| {
            Price::new(raw).ok_or_else(|| invalid(format!("has a price of `{name}` that is not 0 to {MAX_DOLLARS:.0}")))
        };
        let unknown = price("unknown", &raw.unknown)?;
        let models = raw
            .models
            .iter()
            .map(|(name, raw)| Ok((name.to_ascii_lowercase(), price(name, raw)?)))
            .collect::<Result<_, _>>()?;
        Ok(Self { as_of: raw.as_of, unknown, models })
    }

    /// The price of `model`: of its own name, else of the longest name that it is a version of.
    fn price(&self, model: &str) -> Option<&Price> {
        let name = model.to_ascii_lowercase();
        // `openai/gpt-4o`, `publishers/google/models/gemini-2.5-pro`, `us.anthropic.claude-3-5-sonnet-20241022-v2:0`
        let bare = name.rsplit('/').next().unwrap_or(&name);
        let dots = bare.match_indices('.').map(|(at, _)| &bare[at + 1..]);
        [&*name, bare].into_iter().chain(dots).find_map(|name| self.versioned(name))
    }

    fn versioned(&self, name: &str) -> Option<&Price> {
        if let Some(price) = self.models.get(name) {
            return Some(price);
        }
        let ends = name.char_indices().rev().filter(|(_, char)| matches!(char, '-' | '@' | ':')).map(|(at, _)| at);
        let mut versions = ends.filter(|&at| is_version(&name[at..]));
        versions.find_map(|at| self.models.get(&name[..at]))
    }
}

// === impl Price ===

impl Price {
    fn new(raw: &RawPrice) -> Option<Self> {
        let pico = |dollars: f64, unit: f64| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
            (0.0..=MAX_DOLLARS).contains(&dollars).then(|| (dollars * unit).round() as u64)
        };
        let token = |dollars| pico(dollars, PICO_OF_MILLIONTH);
        Some(Self {
            input: token(raw.input)?,
            cached: token(raw.cached.unwrap_or(raw.input))?,
            written: token(raw.written.unwrap_or(raw.input))?,
            output: token(raw.output)?,
            request: pico(raw.request.unwrap_or_default(), PICO_OF_DOLLAR)?,
        })
    }

    /// In nano-dollars, rounded up.
    fn of(&self, tokens: &Tokens) -> u64 {
        let of = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
        let pico = of(tokens.input, self.input)
            + of(tokens.cached, self.cached)
            + of(tokens.written, self.written)
            + of(tokens.output, self.output)
            + u128::from(self.request);
        u64::try_from(pico.div_ceil(PICO_OF_NANO)).unwrap_or(u64::MAX)
    }
}

/// Whether `suffix`, with its sign in front, is that of a version: `-2024-08-06`, `-20241022-v2:0`, `-001`, `-latest`, `-preview`,
/// `@20240620`, `:0`. A part of a name like `-mini` is not, nor is a minor version of one digit like that of `claude-opus-4-1`.
fn is_version(suffix: &str) -> bool {
    if suffix.starts_with(['@', ':']) {
        return true;
    }
    let first = suffix[1..].split(['-', ':', '@']).next().unwrap_or_default();
    let digits = first.strip_prefix('v').unwrap_or(first);
    let number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    matches!(first, "latest" | "preview" | "exp") || number && (first.len() > digits.len() || digits.len() >= 3)
}

fn read(file: &Path) -> Result<String, PriceError> {
    let unread = |source| PriceError::Read { file: file.to_owned(), source };
    let mut text = String::new();
    File::open(file).and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text)).map_err(unread)?;
    Ok(text)
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Result<PriceList, String> {
        PriceList::parse(Path::new("prices.yaml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_built_in_list_prices_models_as_answers_spell_them() {
        let prices = Prices::load(None).unwrap();
        let million = Tokens { input: 1_000_000, ..Tokens::default() };
        let cents = |model: &str| {
            let (cost, listed) = prices.cost(Some(model), None, &million);
            listed.then_some(cost / 10_000_000)
        };
        for (model, expected) in [
            ("gpt-4o", Some(250)),
            ("GPT-4o-2024-08-06", Some(250)),
            ("gpt-4o-mini-2024-07-18", Some(15)),
            ("openai/gpt-4.1", Some(200)),
            ("o1-preview", Some(1500)),
            ("claude-3-5-sonnet-20241022", Some(300)),
            ("claude-3-5-sonnet-latest", Some(300)),
            ("claude-3-5-sonnet@20240620", Some(300)),
            ("us.anthropic.claude-3-5-sonnet-20241022-v2:0", Some(300)),
            ("anthropic.claude-3-haiku-20240307-v1:0", Some(25)),
            ("claude-opus-4-1-20250805", Some(1500)),
            ("claude-haiku-4-5-20251001", Some(100)),
            ("publishers/google/models/gemini-2.5-pro", Some(250)),
            ("gemini-2.0-flash-001", Some(10)),
            ("amazon.nova-lite-v1:0", Some(6)),
            ("text-embedding-3-small", Some(2)),
            ("gpt-4o-audio", None),
            ("gpt-4o-audio-preview-2024-12-17", None),
            ("claude-opus-4-9", None),
            ("claude-sonnet-5", None),
            ("my-model", None),
            ("", None),
        ] {
            assert_eq!(cents(model), expected, "{model}");
        }
        let all = Tokens { input: 1, cached: 2, written: 3, output: 4 };
        assert_eq!(prices.cost(Some("claude-sonnet-4"), None, &all), (3000 + 2 * 300 + 3 * 3750 + 4 * 15_000, true));
        // The name in the request stands in for one that is not listed; nothing known is dear.
        assert_eq!(prices.cost(Some("my-deployment"), Some("gpt-4o"), &million).0, 2_500_000_000);
        assert_eq!(prices.cost(None, None, &all), (6 * 15_000 + 4 * 75_000, false));
    }

    #[test]
    fn sums_round_up_once() {
        let list = list("{as_of: 2026-01-01, unknown: {input: 0.0375, output: 0, request: 0.01}, models: {}}").unwrap();
        for (input, cost) in [(0, 10_000_000), (1, 10_000_038), (2, 10_000_075), (u64::MAX, u64::MAX / 2)] {
            let tokens = Tokens { input, ..Tokens::default() };
            assert!(list.unknown.of(&tokens).abs_diff(cost) == 0 || input == u64::MAX, "{input}");
        }
        let dear = Price { input: u64::MAX, ..list.unknown };
        assert_eq!(dear.of(&Tokens { input: u64::MAX, ..Tokens::default() }), u64::MAX);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for (text, reason) in [
            ("models: {}", "is no list of prices"),
            ("{as_of: x, models: {}}", "is no list of prices"),
            ("{as_of: x, unknown: {input: 1, output: 1}, models: {a: {input: 1, output: 1, prompt: 2}}}", "is no list"),
            ("{as_of: x, unknown: {input: 1, output: 1}, models: {a: {input: -1, output: 1}}}", "a price of `a`"),
            ("{as_of: x, unknown: {input: .nan, output: 1}, models: {}}", "a price of `unknown`"),
        ] {
            let error = list(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_list_is_replaced_and_a_broken_one_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prices.yaml");
        let text = |input: u32| format!("{{as_of: 2026-01-01, unknown: {{input: {input}, output: 0}}, models: {{}}}}");
        std::fs::write(&file, text(1)).unwrap();
        let prices = Prices::load(Some(file.clone())).unwrap();
        let cost = || prices.cost(None, None, &Tokens { input: 1, ..Tokens::default() }).0;
        assert_eq!(cost(), 1000);
        for (next, expected) in [(text(2), 2000), ("broken".to_owned(), 2000), (text(3), 3000)] {
            std::fs::write(&file, next).unwrap();
            prices.refresh();
            assert_eq!(cost(), expected);
        }
        assert!(Prices::load(Some(folder.path().join("none"))).is_err());
    }
}
