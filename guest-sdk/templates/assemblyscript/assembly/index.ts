// A CGI program: the request is in the environment and on standard input, the
// response goes to standard output, headers first.
const path = process.env.has("PATH_INFO") ? process.env.get("PATH_INFO") : "/"; // "/Ada"
const name = path.length > 1 ? path.substring(1) : "world";

process.stdout.write("Content-Type: text/plain; charset=utf-8\n\n");
process.stdout.write(`Hello, ${name}, from AssemblyScript!\n`);
