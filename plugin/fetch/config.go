package fetch

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/jdx/go-netrc"
	"github.com/pelletier/go-toml/v2"

	"github.com/pexpress/pexpress/cache/durable"
)

// config is what pip and uv are configured with, as far as fetching a file goes.
type config struct {
	users    map[string]account // by host, from index URLs
	netrc    *netrc.Netrc
	certFile string
	proxy    string
	pip      map[string]string // pip's own settings, by long option name
}

// readConfig reads environment variables, pip's configuration files and uv's.
func readConfig() (*config, error) {
	c := &config{users: map[string]account{}, pip: map[string]string{}}
	for _, path := range pipFiles() {
		if err := c.readPip(path); err != nil {
			return nil, err
		}
	}
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		if option, ok := strings.CutPrefix(name, "PIP_"); ok && value != "" {
			c.pip[strings.ReplaceAll(strings.ToLower(option), "_", "-")] = value
		}
	}
	for _, urls := range []string{
		c.pip["index-url"], c.pip["extra-index-url"], c.pip["find-links"], os.Getenv("UV_INDEX_URL"),
		os.Getenv("UV_DEFAULT_INDEX"), os.Getenv("UV_EXTRA_INDEX_URL"), os.Getenv("UV_INDEX"), os.Getenv("UV_FIND_LINKS"),
	} {
		for _, u := range strings.Fields(urls) {
			c.addUser(u, "")
		}
	}
	if err := c.readUV(); err != nil {
		return nil, err
	}
	c.certFile = cmp.Or(os.Getenv("SSL_CERT_FILE"), c.pip["cert"], os.Getenv("REQUESTS_CA_BUNDLE"), os.Getenv("CURL_CA_BUNDLE"))
	c.proxy = c.pip["proxy"]
	return c, c.readNetrc()
}

// pipFiles lists pip's configuration files, least important first.
func pipFiles() []string {
	if f := os.Getenv("PIP_CONFIG_FILE"); f == os.DevNull {
		return nil
	}
	files := []string{"/etc/pip.conf", "/etc/xdg/pip/pip.conf"}
	if home, err := os.UserHomeDir(); err == nil {
		files = append(files, filepath.Join(home, ".pip", "pip.conf"))
	}
	if dir, err := os.UserConfigDir(); err == nil {
		files = append(files, filepath.Join(dir, "pip", "pip.conf"))
	}
	if v := os.Getenv("VIRTUAL_ENV"); v != "" {
		files = append(files, filepath.Join(v, "pip.conf"))
	}
	return append(files, os.Getenv("PIP_CONFIG_FILE"))
}

// readPip reads the sections of a pip.conf that hold for downloads. A line that is indented goes on with the value above.
func (c *config) readPip(path string) error {
	f, err := durable.Open(path)
	if err != nil {
		return nil //nolint:nilerr // pip, too, passes over files that it cannot read
	}
	defer f.Close()
	section, option, number := "", "", 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		number++
		text := strings.TrimSpace(line)
		switch {
		case text == "" || text[0] == '#' || text[0] == ';':
		case text[0] == '[':
			section, option = strings.Trim(text, "[]"), ""
		case section != "global" && section != "install" && section != "download":
		case (line[0] == ' ' || line[0] == '\t') && option != "":
			c.pip[option] = strings.TrimSpace(c.pip[option] + " " + text)
		default:
			// Python's configparser takes either sign. The line is not quoted: it may hold a password.
			at := strings.IndexAny(text, "=:")
			if at < 0 {
				return fmt.Errorf("%s: line %d is no setting", path, number)
			}
			option = strings.ReplaceAll(strings.TrimSpace(text[:at]), "_", "-")
			c.pip[option] = strings.TrimSpace(text[at+1:])
		}
	}
	return nil
}

// uvConfig is what of a uv.toml, or of [tool.uv], matters here.
type uvConfig struct {
	IndexURL   string   `toml:"index-url"`
	ExtraIndex []string `toml:"extra-index-url"`
	Index      []struct {
		Name string `toml:"name"`
		URL  string `toml:"url"`
	} `toml:"index"`
}

// readUV takes credentials from uv's own configuration, and from UV_INDEX_NAME_USERNAME and _PASSWORD.
func (c *config) readUV() error {
	files := []string{"/etc/uv/uv.toml", os.Getenv("UV_CONFIG_FILE"), "uv.toml"}
	if dir, err := os.UserConfigDir(); err == nil {
		files = append(files, filepath.Join(dir, "uv", "uv.toml"))
	}
	for _, path := range files {
		b, err := durable.ReadFile(path)
		if err != nil {
			continue
		}
		var u uvConfig
		if err := toml.Unmarshal(b, &u); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		c.addUV(u)
	}
	if b, err := durable.ReadFile("pyproject.toml"); err == nil {
		var p struct {
			Tool struct {
				UV uvConfig `toml:"uv"`
			} `toml:"tool"`
		}
		if toml.Unmarshal(b, &p) == nil { // what is wrong with it is said where it is read in earnest
			c.addUV(p.Tool.UV)
		}
	}
	return nil
}

func (c *config) addUV(u uvConfig) {
	c.addUser(u.IndexURL, "")
	for _, x := range u.ExtraIndex {
		c.addUser(x, "")
	}
	for _, x := range u.Index {
		c.addUser(x.URL, x.Name)
	}
}
