;; A few milliseconds of work, and an answer.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "Content-Type: text/plain\0a\0aworked")
  (func (export "_start") (local $count i32)
    (local.set $count (i32.const 8000000))
    (loop $work
      (local.set $count (i32.sub (local.get $count) (i32.const 1)))
      (br_if $work (local.get $count)))
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 32))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
