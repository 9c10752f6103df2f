# Commands of the project. Each does its own set-up: Go and Python 3.11 are all that must be there.

GO       ?= go
PYTHON   ?= python3.11
CACHE    := $(CURDIR)/.cache
TOOLS    := $(CACHE)/tools
export GOFLAGS := -buildvcs=false
export CGO_ENABLED ?= 0

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFUMPT     := mvdan.cc/gofumpt@v0.12.0
VERSITYGW   := github.com/versity/versitygw/cmd/versitygw@v1.8.0
BUILDIFIER  := github.com/bazelbuild/buildtools/buildifier@v0.0.0-20260904073137-eaa4d125b423
RUFF        := ruff==0.17.6
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

# A real S3 server, for the tests of the bucket.
export PEXPRESS_TEST_VERSITYGW := $(TOOLS)/versitygw

.PHONY: build test race fuzz lint fmt bench bench-cache soak demo test-clients screenshots clean proto help

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

build: ## build pexpress, codeserver and pexcache into bin/
	$(GO) build -trimpath -o bin/ ./plugin/cmd/pexpress ./codeserver/cmd/codeserver ./cache/cmd/pexcache

test: $(TOOLS)/versitygw ## run all tests but the heavy ones with real clients
	$(GO) test -count=1 -timeout 20m ./... # the tests of binaries build them: the test cache does not see what they are made of

race: $(TOOLS)/versitygw ## run the same tests under the race detector
	CGO_ENABLED=1 $(GO) test -race ./...

# A count, not a time: up to Go 1.26 a fuzz target can fail for nothing but that its time is over (golang/go#75804).
FUZZTIME ?= 20000x
fuzz: ## run each fuzz target FUZZTIME (a count, as in 20000x)
	@mkdir -p $(CACHE)
	@grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r file; do \
	  for target in $$(grep -oE '^func Fuzz[A-Za-z0-9_]+' $$file | cut -d' ' -f2); do \
	    echo "$$file $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$(dirname $$file) < /dev/null > $(CACHE)/fuzz.log 2>&1 || { cat $(CACHE)/fuzz.log; exit 1; }; \
	  done || exit 1; \
	done

demo: build ## lock, build, deploy and edit a real Dagster project, and end
	examples/demo.sh

# Tests of ./examples that need no client: make test has run them. TestAlone sees that they need none.
ALONE := ^Test(CI|Channel|Dev|Fleet|Metrics|PluginMissing|Readers|Serve|SeveralLocations|StatusWatch|Timings|Trace|Trust|UnderSystemd|Upgrade)

test-clients: build $(TOOLS)/versitygw $(CACHE)/clients/ready ## run the tests that drive real Dagster, pex, Bazel, Pants and other clients
	PEXPRESS_TEST_CLIENTS=$(CACHE)/clients $(GO) test -count=1 -timeout 50m -skip '$(ALONE)' ./examples ./plugin/pex

screenshots: build $(CACHE)/clients/ready ## take the pictures of docs/page.md with Chromium
	PEXPRESS_TEST_CLIENTS=$(CACHE)/clients PEXPRESS_SCREENSHOTS=$(CURDIR)/docs/images $(GO) test -count=1 -run 'TestPage$$' ./examples

$(CACHE)/clients/ready: examples/clients.txt examples/clients-cache.sh
	rm -rf $(CACHE)/clients
	$(PYTHON) -m venv $(CACHE)/clients
	$(CACHE)/clients/bin/pip install -q --disable-pip-version-check -r examples/clients.txt
	examples/clients-cache.sh $(CACHE)/clients
	touch $@

bench: build $(TOOLS)/versitygw ## measure the design's budgets beside their peers, in paired runs
	$(GO) run ./examples/bench

bench-cache: build ## measure pexcache beside bazel-remote and a null server, in one run
	$(GO) run ./examples/bench-cache

soak: build $(TOOLS)/versitygw $(CACHE)/clients/ready ## the heavy tests at their full counts
	PEXPRESS_SOAK=1 PEXPRESS_TEST_CLIENTS=$(CACHE)/clients $(GO) test -count=1 -timeout 120m -v -run 'Kill|Jitter|Soak|Model' ./...

test-packages: build $(CACHE)/clients/ready ## compare versions that start by themselves and forked ones, with twelve real packages
	PEXPRESS_SOAK=1 PEXPRESS_TEST_CLIENTS=$(CACHE)/clients $(GO) test -count=1 -timeout 30m -v -run 'TestPackages$$' ./examples

lint: $(TOOLS)/staticcheck $(TOOLS)/gofumpt $(TOOLS)/govulncheck $(TOOLS)/buildifier $(CACHE)/ruff/bin/ruff ## formatting, vet, staticcheck, layers, known vulnerabilities
	@bad=$$($(TOOLS)/gofumpt -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$')); test -z "$$bad" || { echo "not gofumpt'ed, run make fmt:"; echo "$$bad"; exit 1; }
	$(GO) vet ./...
	$(TOOLS)/staticcheck ./...
	$(GO) test -count=1 -run 'TestLayers' ./plugin/cmd/pexpress
	$(TOOLS)/buildifier -mode=check -lint=warn $$(git ls-files 'rules/*.bzl' 'rules/*BUILD.bazel' 'rules/WORKSPACE' 'examples/bazel/*.bzl' 'examples/bazel/*BUILD.bazel' '*MODULE.bazel') WORKSPACE.example
	$(CACHE)/ruff/bin/ruff check --no-cache rules/pants examples/pants
	$(CACHE)/ruff/bin/ruff format --no-cache --check rules/pants
	@$(TOOLS)/govulncheck ./... || echo "govulncheck could not run or found something: see above"

fmt: $(TOOLS)/gofumpt ## format the Go code
	$(TOOLS)/gofumpt -w $$(git ls-files '*.go' | grep -v '\.pb\.go$$')

$(TOOLS)/buildifier:
	GOBIN=$(TOOLS) $(GO) install $(BUILDIFIER)
$(CACHE)/ruff/bin/ruff:
	$(PYTHON) -m venv $(CACHE)/ruff
	$(CACHE)/ruff/bin/pip install -q --disable-pip-version-check $(RUFF)
$(TOOLS)/staticcheck:
	GOBIN=$(TOOLS) $(GO) install $(STATICCHECK)
$(TOOLS)/gofumpt:
	GOBIN=$(TOOLS) $(GO) install $(GOFUMPT)
$(TOOLS)/versitygw:
	GOBIN=$(TOOLS) $(GO) install $(VERSITYGW)
$(TOOLS)/govulncheck:
	GOBIN=$(TOOLS) $(GO) install $(GOVULNCHECK)

clean: ## remove what the other commands made here
	rm -rf bin $(CACHE) .demo .bench

proto: ## regenerate the gRPC code after a change to a .proto file
	rm -rf $(CACHE)/proto && mkdir -p $(CACHE)/proto/include/google/longrunning
	$(PYTHON) -m venv $(CACHE)/proto/venv
	$(CACHE)/proto/venv/bin/pip install -q grpcio-tools==1.76.0 googleapis-common-protos==1.72.0
	GOBIN=$(CACHE)/proto/bin $(GO) install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
	GOBIN=$(CACHE)/proto/bin $(GO) install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
	site=$$(echo $(CACHE)/proto/venv/lib/python*/site-packages); \
	cp $$site/google/longrunning/operations_proto.proto $(CACHE)/proto/include/google/longrunning/operations.proto; \
	for p in plugin/proto/v1/builder.proto codeserver/proto/v1/codeserver.proto; do \
	  PATH=$(CACHE)/proto/bin:$$PATH $(CACHE)/proto/venv/bin/python -m grpc_tools.protoc \
	    -I. -I$(CACHE)/proto/include -I$$site -I$$site/grpc_tools/_proto -I$$($(GO) list -m -f '{{.Dir}}' github.com/bazelbuild/remote-apis) \
	    --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative $$p || exit 1; \
	done
