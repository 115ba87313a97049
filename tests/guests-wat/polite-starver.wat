;; Computes for a little less than a tick of the host's clock, gives way, and
;; again: never caught in the act. In between it makes calls that cost the host.
(module
  (import "wasi_snapshot_preview1" "sched_yield" (func $sched_yield (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (local $count i32)
    (loop $again
      (local.set $count (i32.const 1000000))
      (loop $work
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br_if $work (local.get $count)))
      (drop (call $random_get (i32.const 64) (i32.const 1)))
      (drop (call $sched_yield))
      (br $again))))
