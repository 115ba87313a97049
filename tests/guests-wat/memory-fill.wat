;; One instruction that takes long, again and again.
(module
  (memory (export "memory") 1000)
  (func (export "_start")
    (loop $again
      (memory.fill (i32.const 0) (i32.const 7) (i32.const 65536000))
      (br $again))))
