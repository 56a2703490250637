//! Media types by the ending of a name.

/// What a file without a known ending is (RFC 9110 section 8.3: the recipient may then look for itself; we tell it
/// not to, by `X-Content-Type-Options`).
const UNKNOWN: &str = "application/octet-stream";

/// Endings, in order, and their types as registered with IANA.
#[rustfmt::skip]
const TYPES: &[(&str, &str)] = &[
    ("7z",          "application/x-7z-compressed"),
    ("aac",         "audio/aac"),
    ("atom",        "application/atom+xml"),
    ("avif",        "image/avif"),
    ("bin",         UNKNOWN),
    ("bmp",         "image/bmp"),
    ("bz2",         "application/x-bzip2"),
    ("cjs",         "text/javascript; charset=utf-8"),
    ("css",         "text/css; charset=utf-8"),
    ("csv",         "text/csv; charset=utf-8"),
    ("doc",         "application/msword"),
    ("docx",        "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("eot",         "application/vnd.ms-fontobject"),
    ("epub",        "application/epub+zip"),
    ("flac",        "audio/flac"),
    ("geojson",     "application/geo+json"),
    ("gif",         "image/gif"),
    ("gz",          "application/gzip"),
    ("heic",        "image/heic"),
    ("htm",         "text/html; charset=utf-8"),
    ("html",        "text/html; charset=utf-8"),
    ("ico",         "image/vnd.microsoft.icon"),
    ("ics",         "text/calendar; charset=utf-8"),
    ("jar",         "application/java-archive"),
    ("jpeg",        "image/jpeg"),
    ("jpg",         "image/jpeg"),
    ("js",          "text/javascript; charset=utf-8"),
    ("json",        "application/json"),
    ("jsonld",      "application/ld+json"),
    ("jxl",         "image/jxl"),
    ("m3u8",        "application/vnd.apple.mpegurl"),
    ("m4a",         "audio/mp4"),
    ("m4v",         "video/mp4"),
    ("map",         "application/json"),
    ("md",          "text/markdown; charset=utf-8"),
    ("mjs",         "text/javascript; charset=utf-8"),
    ("mov",         "video/quicktime"),
    ("mp3",         "audio/mpeg"),
    ("mp4",         "video/mp4"),
    ("mpd",         "application/dash+xml"),
    ("mpeg",        "video/mpeg"),
    ("oga",         "audio/ogg"),
    ("ogg",         "audio/ogg"),
    ("ogv",         "video/ogg"),
    ("opus",        "audio/ogg"),
    ("otf",         "font/otf"),
    ("pdf",         "application/pdf"),
    ("png",         "image/png"),
    ("pptx",        "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("rar",         "application/vnd.rar"),
    ("rss",         "application/rss+xml"),
    ("rtf",         "application/rtf"),
    ("svg",         "image/svg+xml"),
    ("tar",         "application/x-tar"),
    ("tif",         "image/tiff"),
    ("tiff",        "image/tiff"),
    ("toml",        "application/toml"),
    ("ts",          "video/mp2t"),
    ("ttf",         "font/ttf"),
    ("txt",         "text/plain; charset=utf-8"),
    ("vtt",         "text/vtt; charset=utf-8"),
    ("wasm",        "application/wasm"),
    ("wav",         "audio/wav"),
    ("weba",        "audio/webm"),
    ("webm",        "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp",        "image/webp"),
    ("woff",        "font/woff"),
    ("woff2",       "font/woff2"),
    ("xhtml",       "application/xhtml+xml"),
    ("xls",         "application/vnd.ms-excel"),
    ("xlsx",        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("xml",         "application/xml"),
    ("yaml",        "application/yaml"),
    ("yml",         "application/yaml"),
    ("zip",         "application/zip"),
    ("zst",         "application/zstd"),
];

/// The media type of a file of this name.
#[must_use]
pub fn of_name(name: &[u8]) -> &'static str {
    let Some(dot) = name.iter().rposition(|byte| *byte == b'.') else { return UNKNOWN };
    let Ok(ending) = std::str::from_utf8(&name[dot + 1..]) else { return UNKNOWN };
    let ending = ending.to_ascii_lowercase();
    TYPES.binary_search_by(|(known, _)| (*known).cmp(&ending)).map_or(UNKNOWN, |at| TYPES[at].1)
}

/// Whether compression makes content of this type smaller: text in the wide sense. Images, video, fonts and archives
/// are compressed as they are.
#[must_use]
pub fn is_compressible(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let Ok(essence) = std::str::from_utf8(essence) else { return false };
    let essence = essence.to_ascii_lowercase();
    match essence.split_once('/') {
        Some(("text", kind)) => kind != "event-stream",
        Some(("application", kind)) => {
            const KINDS: &[&str] =
                &["javascript", "json", "manifest+json", "toml", "wasm", "xml", "yaml", "rtf", "x-ndjson"];
            KINDS.contains(&kind) || kind.ends_with("+json") || kind.ends_with("+xml")
        }
        _ => matches!(
            essence.as_str(),
            "image/svg+xml" | "image/bmp" | "image/vnd.microsoft.icon" | "font/otf" | "font/ttf"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_found_by_the_last_ending_in_any_case() {
        assert!(TYPES.is_sorted_by(|one, two| one.0 < two.0), "it is searched by halves");
        assert_eq!(of_name(b"a/INDEX.HTML"), "text/html; charset=utf-8");
        assert_eq!(of_name(b"app.min.js"), "text/javascript; charset=utf-8");
        for unknown in [&b"Makefile"[..], b"a.", b"a.unheard", b"\xff.\xff"] {
            assert_eq!(of_name(unknown), UNKNOWN);
        }
    }

    #[test]
    fn text_is_compressible_and_what_is_compressed_or_streamed_by_event_is_not() {
        for yes in
            ["text/html; charset=utf-8", "Application/JSON", "application/problem+json", "image/svg+xml"]
        {
            assert!(is_compressible(yes.as_bytes()), "{yes}");
        }
        for no in ["text/event-stream", "image/png", "application/zip", "font/woff2", "application/grpc", ""]
        {
            assert!(!is_compressible(no.as_bytes()), "{no}");
        }
    }
}
