//! The `sidekey` binary: everything is in the library.

/// A request allocates some fifty times, and the buffers that the codecs read into are what glibc is slowest at; musl's own
/// is slower still.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    sidekey::cli::main()
}
