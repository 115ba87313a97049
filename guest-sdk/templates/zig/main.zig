const std = @import("std");

/// A CGI program: the request is in the environment and on standard input, the
/// response goes to standard output, headers first.
pub fn main(init: std.process.Init) !void {
    const path = init.environ_map.get("PATH_INFO") orelse "/"; // "/Ada"
    const name = if (path.len > 1) path[1..] else "world";

    var buffer: [4096]u8 = undefined;
    var writer = std.Io.File.stdout().writerStreaming(init.io, &buffer);
    const out = &writer.interface;
    try out.writeAll("Content-Type: text/plain; charset=utf-8\n\n");
    try out.print("Hello, {s}, from Zig!\n", .{name});
    try out.flush();
}
