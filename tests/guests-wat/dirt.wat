;; A command that looks for anything in its memory that it did not write, then
;; fills all of it.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 64)
  (data (i32.const 16) "Content-Type: text/plain\0a\0aclean")
  (data (i32.const 64) "Content-Type: text/plain\0a\0adirty")
  (func $answer (param $text i32)
    (i32.store (i32.const 0) (local.get $text))
    (i32.store (i32.const 4) (i32.const 31))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func (export "_start")
    (local $at i32)
    (local.set $at (i32.const 1024))
    (loop $next
      (if (i64.ne (i64.load (local.get $at)) (i64.const 0))
        (then (call $answer (i32.const 64)) (return)))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $at) (i32.const 4194304))))
    (memory.fill (i32.const 1024) (i32.const 255) (i32.const 4193280))
    (call $answer (i32.const 16))))
