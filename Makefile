# Every line is what CI or a person runs. `make help` lists them.
export CGO_ENABLED = 0

.PHONY: hello build test test-vm bench lint docs install uninstall help
.DEFAULT_GOAL := help

hello: build ## build Hull and run a container from the built-in image: no registry, no network
	@.ci/hello

build: ## bin/hull, bin/hulld and bin/hull-runtime; GOARCH=arm64 compiles for another machine
	@.ci/build

test: ## install what the tests need (as root), build, and run every test this user may run
	@.ci/test

test-vm: ## the core of the tests on Debian's own kernel: cgroup v2, AppArmor (QEMU, no KVM needed)
	@test/vm/run && test/vm/run --systemd

bench: build ## measure against the C floor, docker and podman; write docs/benchmarks.md
	@.ci/packages gcc busybox dockerd podman docker-registry runc mkfs.ext4 && go run ./bench

lint: ## gofmt, vet for both architectures, and the import and weight rules
	@.ci/lint

docs: ## serve the documentation of the packages
	@go doc -http

install: build ## put programs and systemd units into $(DESTDIR)$(PREFIX), /usr/local
	@PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) install/install

uninstall: ## take them away again; containers and images stay
	@PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) install/install --remove

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
