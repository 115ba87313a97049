;; A command that prints headers which are not a guest's to send, and in its body
;; what looks like a second response.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "Content-Type: text/plain\0aTransfer-Encoding: chunked\0aConnection: upgrade\0aUpgrade: websocket\0aX-Request-Id: forged\0a\0aone\0aHTTP/1.1 200 OK\0d\0acontent-length: 3\0d\0a\0d\0atwo")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 158))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
