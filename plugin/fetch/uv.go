package fetch

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// uvIndex returns the URL of the default index that uv's environment names, "" for none. It may stand there as NAME=URL.
func uvIndex() string {
	index := cmp.Or(os.Getenv("UV_DEFAULT_INDEX"), os.Getenv("UV_INDEX_URL"))
	if name, rest, ok := strings.Cut(index, "="); ok && !strings.Contains(name, "/") {
		return rest
	}
	return index
}

// UVEnv returns the environment variables by which uv goes by pip's configuration where it has none of its own: uv does
// not read pip's. What it would download beside packages, such as an interpreter, it leaves alone.
func (f *Fetcher) UVEnv() []string {
	env := []string{"UV_PYTHON_DOWNLOADS=never", "UV_NO_PROGRESS=1"}
	for _, m := range []struct{ option, variable string }{
		{"index-url", "UV_DEFAULT_INDEX"},
		{"extra-index-url", "UV_INDEX"},
		{"find-links", "UV_FIND_LINKS"},
		{"cert", "SSL_CERT_FILE"},
		{"proxy", "ALL_PROXY"},
		{"trusted-host", "UV_INSECURE_HOST"},
	} {
		value := f.config.pip[m.option]
		if value == "" || os.Getenv(m.variable) != "" || m.option == "index-url" && os.Getenv("UV_INDEX_URL") != "" {
			continue
		}
		if m.option == "find-links" {
			value = existing(value)
		}
		if value != "" {
			env = append(env, m.variable+"="+value)
		}
	}
	return env
}

// UVArgs returns the options of uv by which it goes by those settings of pip's for which uv has no environment variable.
func (f *Fetcher) UVArgs() []string {
	// The words for "yes" are configparser's, which pip goes by.
	if slices.Contains([]string{"1", "yes", "true", "on"}, strings.ToLower(f.config.pip["no-index"])) {
		return []string{"--no-index"}
	}
	return nil
}

// existing drops directories that are not there, which pip passes over and uv refuses. The others become absolute: uv
// does not run where pip would.
func existing(links string) string {
	var kept []string
	for _, l := range strings.Fields(links) {
		if strings.Contains(l, "://") {
			kept = append(kept, l)
			continue
		}
		abs, err := filepath.Abs(l)
		if err != nil {
			continue
		}
		if _, err := os.Stat(abs); err == nil {
			kept = append(kept, abs)
		}
	}
	return strings.Join(kept, ",")
}
