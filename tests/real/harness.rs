//! Runs every test in a process and a namespace of its own, and prints what `cargo test` prints.
//!
//! A test is an `async fn` without arguments that panics when something is wrong. It has a machine of its own: loopback
//! only, where every name and address of the internet is answered by [`Provider`](crate::provider::Provider), and where
//! everything that it started dies with it, however it ends. So fixed ports do not clash, servers may be broken at will,
//! and nothing that leaks can reach anybody.
//!
//! Arguments are those of libtest as far as people use them: `[FILTER…] --exact --skip TEXT --list --test-threads N
//! --nocapture`. A test that finds a component missing calls [`skip`]; with `REAL_TESTS_REQUIRE` set that is a failure.
//! `REAL_TESTS_SECS` gives each test another limit, for measurements.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    pin::Pin,
    process::{ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio::{process::Command, sync::Semaphore, task::JoinSet, time::Instant};

use crate::namespace::{self, Namespace};

/// How long one test may take, its servers' start included, seconds. The slowest takes a tenth of it.
const TEST_SECS: u64 = 180;

/// Exit status of a test process whose test cannot run on this machine (as in automake).
const SKIPPED: i32 = 77;

/// The end of a failed test's output that is shown, bytes.
const SHOWN_OUTPUT_BYTES: usize = 64 * 1024;

/// One test: its path below this crate, and what it does.
pub struct Test {
    pub name: &'static str,
    pub body: fn() -> Pin<Box<dyn Future<Output = ()>>>,
}

/// A list of [`Test`]s from paths of `async fn()`.
#[macro_export]
macro_rules! tests {
    ($($path:path),* $(,)?) => {
        &[$($crate::harness::Test { name: stringify!($path), body: || Box::pin($path()) }),*]
    };
}

struct Options {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    list: bool,
    capture: bool,
    threads: usize,
}

enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

/// Ends this test as one that cannot run here; `reason` says what is missing and how to get it.
pub fn skip(reason: &str) -> ! {
    println!("skipped: {reason}");
    std::process::exit(SKIPPED)
}

/// The folder of the running test: servers keep their files and logs here. It stays when the test fails.
pub fn folder() -> PathBuf {
    env::var_os("REAL_TESTS_FOLDER").expect("only a test has a folder").into()
}

/// Everything `main` does.
pub fn main(tests: &'static [Test]) -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [flag, name] = arguments.as_slice()
        && flag == "--inside"
    {
        return inside(tests, name);
    }
    let options = Options::parse(&arguments);
    let chosen: Vec<&Test> = tests.iter().filter(|test| options.selects(test.name)).collect();
    if options.list {
        for test in &chosen {
            println!("{}: test", test.name);
        }
        println!("\n{} tests, 0 benchmarks", chosen.len());
        return ExitCode::SUCCESS;
    }
    runtime().block_on(run(&chosen, tests.len() - chosen.len(), &options))
}

fn inside(tests: &[Test], name: &str) -> ExitCode {
    let test = tests.iter().find(|test| test.name == name).expect("a known test");
    namespace::enter(&folder());
    runtime().block_on((test.body)());
    ExitCode::SUCCESS
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

async fn run(chosen: &[&'static Test], filtered_out: usize, options: &Options) -> ExitCode {
    let began = Instant::now();
    let required = env::var("REAL_TESTS_REQUIRE").is_ok_and(|value| !value.is_empty());
    println!("\nrunning {} tests, each on a network of its own", chosen.len());
    let namespace = Namespace::find();
    if let Err(reason) = &namespace {
        println!("no test can run here: {reason}");
    }

    let slots = Arc::new(Semaphore::new(options.threads));
    let mut running = JoinSet::new();
    for test in chosen {
        let (name, slots, namespace, capture) = (test.name, slots.clone(), namespace.clone(), options.capture);
        running.spawn(async move {
            let _slot = slots.acquire_owned().await.expect("never closed");
            let began = Instant::now();
            let (outcome, output) = match namespace {
                Ok(namespace) => run_one(name, &namespace, capture).await,
                Err(reason) => (Outcome::Skipped(reason), String::new()),
            };
            (name, outcome, output, began.elapsed())
        });
    }

    let (mut passed, mut skipped, mut failures) = (0, 0, Vec::new());
    while let Some(finished) = running.join_next().await {
        let (name, outcome, output, elapsed) = finished.expect("the runner does not panic");
        let verdict = match outcome {
            Outcome::Passed => {
                passed += 1;
                "ok".to_owned()
            }
            Outcome::Skipped(reason) if !required => {
                skipped += 1;
                format!("ignored, {reason}")
            }
            Outcome::Skipped(reason) | Outcome::Failed(reason) => {
                failures.push((name, output));
                format!("FAILED, {reason}")
            }
        };
        println!("test {name} ... {verdict} ({:.1} s)", elapsed.as_secs_f32());
        let _ = std::io::stdout().flush();
    }

    if !failures.is_empty() {
        println!("\nfailures:");
        for (name, output) in &failures {
            println!("\n---- {name}: output; logs in {} ----\n{output}", test_folder(name).display());
        }
        println!("\nfailures:");
        for (name, _) in &failures {
            println!("    {name}");
        }
    }
    println!(
        "\ntest result: {}. {passed} passed; {} failed; {skipped} ignored; 0 measured; {filtered_out} filtered out; \
         finished in {:.2}s\n",
        if failures.is_empty() { "ok" } else { "FAILED" },
        failures.len(),
        began.elapsed().as_secs_f32(),
    );
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

async fn run_one(name: &str, namespace: &Namespace, capture: bool) -> (Outcome, String) {
    let folder = test_folder(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder for the test");
    let output_file = folder.join("output");
    let limit = env::var("REAL_TESTS_SECS").ok().and_then(|secs| secs.parse().ok()).unwrap_or(TEST_SECS);

    let mut command: Command = namespace.command();
    command.arg(env::current_exe().expect("this program")).args(["--inside", name]).env("REAL_TESTS_FOLDER", &folder);
    // The line that panicked says it all; thirty frames of a runtime hide it.
    command.env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::null()).kill_on_drop(true);
    if capture {
        let output = fs::File::create(&output_file).expect("an output file");
        command.stdout(output.try_clone().expect("a second handle")).stderr(output);
    }
    let mut child = command.spawn().expect("unshare starts");
    let status = tokio::time::timeout(Duration::from_secs(limit), child.wait()).await;
    if status.is_err() {
        // Takes the namespace along, and with it everything the test started.
        let _ = child.kill().await;
    }

    let output = end_of(&output_file);
    let outcome = match status {
        Ok(Ok(status)) if status.success() => Outcome::Passed,
        Ok(Ok(status)) if status.code() == Some(SKIPPED) => {
            let last = output.lines().rev().find_map(|line| line.strip_prefix("skipped: "));
            Outcome::Skipped(last.unwrap_or("no reason given").to_owned())
        }
        Ok(Ok(status)) => Outcome::Failed(status.to_string()),
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Err(_) => Outcome::Failed(format!("not done after {limit} s")),
    };
    if matches!(outcome, Outcome::Passed | Outcome::Skipped(_)) {
        let _ = fs::remove_dir_all(&folder);
    }
    (outcome, output)
}

fn test_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("real").join(name.replace("::", "."))
}

fn end_of(file: &Path) -> String {
    let bytes = fs::read(file).unwrap_or_default();
    let start = bytes.len().saturating_sub(SHOWN_OUTPUT_BYTES);
    String::from_utf8_lossy(&bytes[start..]).into_owned()
}

// === impl Options ===

impl Options {
    fn parse(arguments: &[String]) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let mut options =
            Self { filters: Vec::new(), skips: Vec::new(), exact: false, list: false, capture: true, threads: cores };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let (name, value) = argument.split_once('=').map_or((argument.as_str(), None), |(n, v)| (n, Some(v)));
            let mut value = || value.map_or_else(|| arguments.next().cloned().unwrap_or_default(), str::to_owned);
            match name {
                "--exact" => options.exact = true,
                "--list" => options.list = true,
                "--nocapture" | "--no-capture" => options.capture = false,
                "--skip" => options.skips.push(value()),
                "--test-threads" => options.threads = value().parse().ok().filter(|n| *n > 0).unwrap_or(cores),
                "--format" | "--color" => drop(value()),
                flag if flag.starts_with('-') => {} // libtest knows more than concerns us
                filter => options.filters.push(filter.to_owned()),
            }
        }
        options
    }

    fn selects(&self, name: &str) -> bool {
        let matches = |text: &String| if self.exact { name == text } else { name.contains(text.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(matches)) && !self.skips.iter().any(matches)
    }
}
