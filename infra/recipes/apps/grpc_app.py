"""A gRPC server and its client, without generated code: calls of all four kinds, and a status in the trailers.

    grpc_app.py serve PORT
    grpc_app.py call HOST:PORT CERTIFICATE…     the first certificate that the server's is signed by
"""

import sys
from concurrent import futures

import grpc


def unary(request, context):
    if request == b"refuse":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked")
    return b"heard " + request


def stream_out(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def stream_in(requests, context):
    return b"%d" % sum(int(request) for request in requests)


def both(requests, context):
    for request in requests:
        yield b"heard " + request


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Out": grpc.unary_stream_rpc_method_handler(stream_out),
    "In": grpc.stream_unary_rpc_method_handler(stream_in),
    "Both": grpc.stream_stream_rpc_method_handler(both),
}


def serve(port):
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("recipes.Echo", METHODS),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def call(target, certificates):
    roots = b"".join(open(path, "rb").read() for path in certificates)
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.default_authority", "localhost")]
    with grpc.secure_channel(target, grpc.ssl_channel_credentials(roots), options) as channel:
        assert channel.unary_unary("/recipes.Echo/Unary")(b"a", timeout=20) == b"heard a"
        assert list(channel.unary_stream("/recipes.Echo/Out")(b"100", timeout=20)) == [b"%d" % n for n in range(100)]
        assert channel.stream_unary("/recipes.Echo/In")(iter([b"1", b"2", b"3"]), timeout=20) == b"6"
        assert list(channel.stream_stream("/recipes.Echo/Both")(iter([b"a", b"b"]), timeout=20)) == [b"heard a", b"heard b"]
        try:
            channel.unary_unary("/recipes.Echo/Unary")(b"refuse", timeout=20)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.FAILED_PRECONDITION and error.details() == "as asked", error
        else:
            raise AssertionError("the status in the trailers is lost")
    print("  all four kinds of calls, and a status in the trailers")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        call(sys.argv[2], sys.argv[3:])
