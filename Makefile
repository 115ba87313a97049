# Whit. `make demo` shows it, `make test` proves it.

# One folder for all builds; a release build has its own part of it.
CARGO ?= cargo

TARGET ?= spec
SECONDS_MAX ?= 600

.PHONY: demo test release bench matrix soak fuzz check install clean

# Builds the host, gets the guest toolchains that are missing, builds and
# deploys every example, and keeps serving. Ends with Ctrl-C.
demo:
	$(CARGO) run --release --locked -p whit -- dev examples --install

# The whole test suite: unit tests, end-to-end tests on the real binary, the
# SDKs' tests and every example.
test:
	guest-sdk/toolchains/install
	$(CARGO) test --workspace --locked

# The host as it should be released, compiled and, where llvm-bolt is there, laid
# out for what it was seen to do under load: target/profile-guided/use/release/whit.
# Twenty-five minutes.
release:
	guest-sdk/toolchains/install
	host/benches/profile-guided build -p whit

# Whit beside its peers, then the parts of a request alone. What the first saw
# goes into host/benches/RESULTS.md. An hour; leave the machine alone.
bench:
	guest-sdk/toolchains/install
	host/benches/profile-guided bench -p whit --bench side_by_side -- --write
	host/benches/profile-guided bench -p whit --bench micro

# The matrix of languages in README.
matrix:
	guest-sdk/toolchains/install
	$(CARGO) bench --locked -p whit --bench languages

# What takes long, or needs a quiet machine or strace: how much neighbours and
# crowds feel of each other, to the letter; 20 restarts and 50 kills under load;
# 100,000 failures; 150,000 mutated requests through nginx, haproxy and varnish,
# where they are installed; a host that is killed at every system call of a deploy,
# or whose disk fails there. Of the host as it is released. Half an hour, the build
# included; ends with a summary.
soak:
	tests/soak/run

# One of the targets in tests/fuzz, for as long as is said: libFuzzer, with the
# instruments that it needs. New inputs are kept in corpus, where the next run
# begins; what gets the target wrong is in artifacts.
INSTRUMENTS = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
	-Ccodegen-units=1
fuzz:
	mkdir -p tests/fuzz/corpus/$(TARGET) tests/fuzz/artifacts/$(TARGET)
	RUSTFLAGS="$(INSTRUMENTS)" $(CARGO) run --release --locked --manifest-path tests/fuzz/Cargo.toml \
		--target-dir target/fuzz --target x86_64-unknown-linux-gnu --bin $(TARGET) -- \
		-max_total_time=$(SECONDS_MAX) -artifact_prefix=tests/fuzz/artifacts/$(TARGET)/ \
		tests/fuzz/corpus/$(TARGET) tests/fuzz/seeds/$(TARGET)

# What the gate runs.
check:
	.ci/run

install:
	$(CARGO) install --locked --path host

clean:
	$(CARGO) clean
