;; A CGI program: it prints headers, an empty line, and the body.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)

  ;; What to write: an address and a length, and behind them the text.
  (data (i32.const 0) "\10\00\00\00" "\4e\00\00\00")
  (data (i32.const 16)
    "Content-Type: text/plain; charset=utf-8\0a\0a"
    "Hello, world, from WebAssembly text!\0a")

  (func (export "_start")
    (drop
      (call $fd_write
        (i32.const 1)      ;; standard output
        (i32.const 0)      ;; the list of what to write
        (i32.const 1)      ;; its length
        (i32.const 8)))))  ;; where the count of written bytes goes
