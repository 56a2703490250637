//! Crash reports with a bound. The default panic hook costs more than a restart and prints without limit.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::PanicHookInfo;
use std::sync::Once;

/// Longest text of a crash report, in bytes.
pub(crate) const REPORT_BYTES_MAX: usize = 2048;

thread_local! {
    static SUPERVISED: Cell<bool> = const { Cell::new(false) };
    static REPORT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Puts our hook before the one that is there. Panics outside supervised code still reach that one.
pub(crate) fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if SUPERVISED.get() {
                let report = describe(info);
                REPORT.with_borrow_mut(|slot| *slot = Some(report));
            } else {
                previous(info);
            }
        }));
    });
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let text = payload_text(info.payload());
    match info.location() {
        Some(at) => capped(&format!("{text} at {}:{}", at.file(), at.line())),
        None => capped(text),
    }
}

fn payload_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic without a text")
}

/// Runs `f` as supervised code: its panic is an `Err` with the report, and is told to nobody else.
pub(crate) fn catch<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    let outer = SUPERVISED.replace(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    SUPERVISED.set(outer);
    result.map_err(|payload| {
        // `resume_unwind` (a panic carried over from a blocking thread) passes no hook and leaves no report.
        let report = REPORT.with_borrow_mut(Option::take);
        let text = report.unwrap_or_else(|| capped(payload_text(&*payload)));
        drop_quietly(payload);
        text
    })
}

/// Drops what may panic while being dropped. A panic in the drop of a panic's payload is leaked, not chased.
pub(crate) fn drop_quietly<T>(value: T) {
    let outer = SUPERVISED.replace(true);
    if let Err(payload) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(value))) {
        std::mem::forget(payload);
    }
    SUPERVISED.set(outer);
}

/// At most [`REPORT_BYTES_MAX`] bytes of it.
pub(crate) fn capped(text: &str) -> String {
    if text.len() <= REPORT_BYTES_MAX {
        return text.to_owned();
    }
    let cut = (0..=REPORT_BYTES_MAX).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    format!("{}… ({} bytes)", &text[..cut], text.len())
}
