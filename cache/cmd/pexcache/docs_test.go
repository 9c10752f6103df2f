package main

import (
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/instance"
)

const examples = "../../../examples/pexcache"

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

// keys returns the keys of a configuration's struct, tables not among them.
func keys(typ reflect.Type) []string {
	var all []string
	for i := range typ.NumField() {
		f := typ.Field(i)
		switch {
		case f.Anonymous:
			all = append(all, keys(f.Type)...)
		default:
			all = append(all, f.Tag.Get("toml"))
		}
	}
	return all
}

// TestKeysAreFlagsAndDocumented: each key is a flag or a table, and the page says what it means.
func TestKeysAreFlagsAndDocumented(t *testing.T) {
	page := read(t, "../../../docs/pexcache.md")
	flags := serveCommand().Flags()
	tables := []string{"oidc", "instance", "s3-prices"}
	known := map[string]bool{"config": true}
	for _, key := range keys(reflect.TypeFor[config]()) {
		known[key] = true
		if !containsAny(tables, key) {
			require.NotNil(t, flags.Lookup(key), "%s is no flag", key)
			require.Regexp(t, "(?m)^\\|.*`"+regexp.QuoteMeta(key)+"`", page, "the page does not say what %s means", key)
		} else {
			require.Regexp(t, `(?m)^\[+`+key+`\]`, page)
		}
	}
	flags.VisitAll(func(f *pflag.Flag) { require.True(t, known[f.Name], "%s is no key", f.Name) })
}

func containsAny(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

// TestMetricsAreDocumented compares the page with what a server over a bucket says of itself.
func TestMetricsAreDocumented(t *testing.T) {
	page := read(t, "../../../docs/pexcache.md")
	p := start(t, with(bucket(t), "--disk", t.TempDir())...)
	_, err := cache.PutBlob(t.Context(), p.dial(""), []byte("x"))
	require.NoError(t, err)
	code, body := p.ask(http.MethodGet, "/metrics", "", nil)
	require.Equal(t, http.StatusOK, code)
	served := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (pexcache_\w+) `).FindAllStringSubmatch(body, -1) {
		served[m[1]] = true
		require.Contains(t, page, "`"+m[1]+"`")
	}
	require.Greater(t, len(served), 15)
	for _, m := range regexp.MustCompile("`(pexcache_[a-z0-9_]+)`").FindAllStringSubmatch(page, -1) {
		// What has no value yet is not served.
		require.True(t, served[m[1]] || m[1] == "pexcache_action_results_total", "%s is documented and not served", m[1])
	}
}

func checkConfig(t *testing.T, path string) {
	t.Helper()
	c := defaults()
	require.NoError(t, c.load(serveCommand(), path))
	require.NoError(t, c.check())
	_, err := instance.New(&store{}, c.instances())
	require.NoError(t, err)
}

func TestExampleConfigurations(t *testing.T) {
	checkConfig(t, filepath.Join(examples, "pexcache.toml"))
	dec := yaml.NewDecoder(strings.NewReader(read(t, filepath.Join(examples, "kubernetes", "pexcache.yaml"))))
	configs := 0
	for {
		var doc struct {
			Kind string
			Data map[string]string
		}
		if dec.Decode(&doc) != nil {
			break
		}
		if doc.Kind == "ConfigMap" {
			configs++
			checkConfig(t, write(t, t.TempDir(), "pexcache.toml", doc.Data["pexcache.toml"]))
		}
	}
	require.Equal(t, 1, configs)
	for _, name := range []string{"pexcache.service", "pexcache-gc.service"} {
		for _, m := range regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/pexcache (\w+) (.*)$`).FindAllStringSubmatch(read(t, filepath.Join(examples, name)), -1) {
			cmd, args, err := command(&ui{}).Find(append([]string{m[1]}, strings.Fields(m[2])...))
			require.NoError(t, err)
			require.NoError(t, cmd.ParseFlags(args))
			require.NoError(t, cmd.ValidateRequiredFlags())
		}
	}
}
