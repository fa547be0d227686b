//! The rules of `fuzz/src` for a fixed number of inputs: the corpus, then what is made of it. `fuzz/run` goes deeper, with a build of
//! its own.
//!
//! Inputs are changed without regard to coverage, by one to eight of the usual means: bits, bytes, pieces left out or repeated, words of
//! the dictionary, the end of another input. Every run tries the same ones, so that none fails by chance; `FUZZ_SEED=N` tries others, and
//! `FUZZ_INPUTS=N` more. What breaks a rule is printed with its seed; it becomes a file of the corpus.

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    time::Duration,
};

use tokio::time::Instant;

#[path = "../../fuzz/src/lib.rs"]
mod rules;

/// What a run tries of each target unless told otherwise: about a second of a debug build.
const INPUTS: u64 = 20_000;
const SEED: u64 = 0;
/// Nothing of this length takes longer, in a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const LONGEST: usize = 16 * 1024;

/// Changes inputs; the same seed changes them alike.
struct Chance {
    state: u64,
    corpus: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
}

// === impl Chance ===

impl Chance {
    fn new(target: &str, seed: u64) -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let mut files: Vec<_> =
            fs::read_dir(root.join("corpus").join(target)).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        let corpus = files.iter().map(|file| fs::read(file).unwrap()).collect();
        // A word stands in quotes, as JSON would write it.
        let dictionary = fs::read_to_string(root.join("json.dict")).unwrap();
        let words = dictionary.lines().filter_map(|line| serde_json::from_str::<String>(line).ok());
        Self { state: seed, corpus, words: words.map(String::into_bytes).collect() }
    }

    /// Splitmix64.
    fn next(&mut self) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 1).unwrap()
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() % bound.max(1)
    }

    fn input(&mut self) -> Vec<u8> {
        let at = self.below(self.corpus.len());
        let mut input = self.corpus[at].clone();
        for _ in 0..=self.below(8) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let (from, length) = (self.below(input.len() + 1), self.below(16));
        let end = (from + length).min(input.len());
        match self.below(6) {
            0 if from < input.len() => input[from] ^= 1 << self.below(8),
            1 if from < input.len() => input[from] = u8::try_from(self.below(256)).unwrap(),
            2 => drop(input.drain(from..end)),
            3 => {
                let piece = input[from..end].repeat(1 + self.below(4));
                input.splice(from..from, piece);
            }
            4 => {
                let other = self.below(self.corpus.len());
                let tail = self.below(self.corpus[other].len() + 1);
                input.truncate(from);
                input.extend_from_slice(&self.corpus[other][tail..]);
            }
            _ => {
                let word = self.below(self.words.len());
                input.splice(from..end, self.words[word].iter().copied());
            }
        }
    }
}

fn hold(target: &str, check: fn(&[u8])) {
    let told = |name: &str| env::var(name).ok().map(|told| told.parse::<u64>().expect(name));
    let (seed, inputs) = (told("FUZZ_SEED").unwrap_or(SEED), told("FUZZ_INPUTS").unwrap_or(INPUTS));
    let mut chance = Chance::new(target, seed);
    let mut corpus = chance.corpus.clone().into_iter();
    assert!(corpus.len() > 0, "a corpus");
    for count in 0..inputs {
        let input = corpus.next().unwrap_or_else(|| chance.input());
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| check(&input)));
        let said = || format!("{target}, FUZZ_SEED={seed}, input {count}: \"{}\"", input.escape_ascii());
        assert!(began.elapsed() < PATIENCE, "{:?} for {}", began.elapsed(), said());
        assert!(outcome.is_ok(), "{}", said());
    }
}

macro_rules! targets {
    ($($target:ident),*) => {$(
        #[test]
        fn $target() {
            hold(stringify!($target), rules::$target::check);
        }
    )*};
}

targets!(admin_body, body_scan, config_header, pick, secret_path, snapshot);
