//! What a head costs: reading it, and writing what the next hop gets of it. The budget is 1 µs for a usual request.

#![allow(missing_docs, reason = "criterion's macros make the functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http_support::wire::{
    ChunkedLimits, ChunkedScanner, Forwarding, HeadLimits, Parsed, RequestHead, ResponseHead, Scheme,
    Version, hop_lines, write_request_line, write_status_line,
};

const REQUEST: &[u8] = b"GET /static/img/logo.png?v=3 HTTP/1.1\r\nHost: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0\r\n\
    Accept: image/avif,image/webp,*/*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n\
    Connection: keep-alive\r\nReferer: https://www.example.com/index.html\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Thu, 26 Nov 2026 01:00:00 GMT\r\n\
    Content-Type: text/html\r\nContent-Length: 128\r\nConnection: keep-alive\r\nETag: \"abc\"\r\n\
    Cache-Control: max-age=60\r\n\r\n";

fn heads(bench: &mut Criterion) {
    let limits = HeadLimits::default();
    let forwarding = Forwarding::new("standfast", [192, 0, 2, 1].into(), Scheme::Http, false);
    let mut out = Vec::with_capacity(4096);
    bench.bench_function("request/read", |bench| {
        bench.iter(|| RequestHead::parse(std::hint::black_box(REQUEST), &limits).is_ok());
    });
    bench.bench_function("request/read_and_write", |bench| {
        bench.iter(|| {
            out.clear();
            let Ok(Parsed::Complete { head, .. }) =
                RequestHead::parse(std::hint::black_box(REQUEST), &limits)
            else {
                return;
            };
            write_request_line(head.method(), head.target(), head.authority(), &mut out);
            head.end_to_end_lines(&mut out, |_| false);
            head.framing_line(&mut out);
            hop_lines(&head, &mut out);
            forwarding.lines(&head, &mut out);
            out.extend_from_slice(b"\r\n");
        });
    });
    bench.bench_function("response/read_and_write", |bench| {
        bench.iter(|| {
            out.clear();
            let Ok(Parsed::Complete { head, .. }) =
                ResponseHead::parse(std::hint::black_box(RESPONSE), &limits)
            else {
                return;
            };
            write_status_line(head.status(), &mut out);
            head.end_to_end_lines(&mut out, |_| false);
            head.framing_line("GET", Version::Http11, &mut out);
            out.extend_from_slice(b"\r\n");
        });
    });
}

fn chunks(bench: &mut Criterion) {
    let chunk = [b"1000\r\n".as_slice(), &[b'x'; 4096], b"\r\n"].concat();
    let body = [chunk.repeat(16), b"0\r\n\r\n".to_vec()].concat();
    let mut group = bench.benchmark_group("chunks");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("verbatim_64KiB", |bench| {
        bench.iter(|| {
            let mut scanner = ChunkedScanner::new(ChunkedLimits::default());
            scanner.verbatim(&mut std::hint::black_box(&body[..])).is_ok()
        });
    });
    group.finish();
}

criterion_group!(benches, heads, chunks);
criterion_main!(benches);
