;; Six memories of 2 MiB.
(module
  (memory (export "memory") 32)
  (memory 32) (memory 32) (memory 32) (memory 32) (memory 32)
  (func (export "_start")))
