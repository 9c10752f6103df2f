package project

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// A document is a parsed TOML file that knows on which line each key stands.
type document struct {
	file  string
	root  map[string]any
	lines map[string]int // by dotted key
	errs  []error
}

func parseTOML(file string, b []byte) (*document, error) {
	d := &document{file: file, root: map[string]any{}, lines: map[string]int{}}
	if err := toml.Unmarshal(b, &d.root); err != nil {
		if at := (*toml.DecodeError)(nil); errors.As(err, &at) {
			line, column := at.Position()
			return nil, fmt.Errorf("%s:%d:%d: %w", file, line, column, err)
		}
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	p := &unstable.Parser{}
	p.Reset(b)
	table := ""
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = d.note(p, "", e)
		case unstable.KeyValue:
			d.noteValue(p, table, e)
		}
	}
	return d, p.Error()
}

// note records the line of an expression's key and returns the key in full.
func (d *document) note(p *unstable.Parser, above string, e *unstable.Node) string {
	key := above
	for it := e.Key(); it.Next(); {
		key = join(key, string(it.Node().Data))
		if d.lines[key] == 0 {
			d.lines[key] = p.Shape(p.Range(it.Node().Data)).Start.Line
		}
	}
	return key
}

func (d *document) noteValue(p *unstable.Parser, above string, e *unstable.Node) {
	key := d.note(p, above, e)
	if e.Value().Kind == unstable.InlineTable {
		for it := e.Value().Children(); it.Next(); {
			d.noteValue(p, key, it.Node())
		}
	}
}

func join(above, key string) string {
	if above == "" {
		return key
	}
	return above + "." + key
}

// errorf records what is wrong with a key.
func (d *document) errorf(key, format string, args ...any) {
	d.errs = append(d.errs, fmt.Errorf("%s:%d: %s", d.file, d.lines[key], key+" "+fmt.Sprintf(format, args...)))
}

// A table reads one TOML table of the project's own configuration: each key at most once, by its type, and any key
// that nothing asked for is an error.
type table struct {
	doc   *document
	key   string
	m     map[string]any
	known map[string]bool
}

func (d *document) table(key string, m map[string]any) *table {
	return &table{doc: d, key: key, m: m, known: map[string]bool{}}
}

// errorf records what is wrong with one of the table's keys.
func (t *table) errorf(key, format string, args ...any) {
	t.doc.errorf(join(t.key, key), format, args...)
}

// get returns a value of type T, or the zero value when the key is absent or of another type, which is an error.
func get[T any](t *table, key, want string) T {
	t.known[key] = true
	v, ok := t.m[key]
	typed, right := v.(T)
	if ok && !right {
		t.errorf(key, "must be %s, it is %s", want, typeName(v))
	}
	return typed
}

func (t *table) string(key string) string { return get[string](t, key, "a string") }

// strings returns a list of strings.
func (t *table) strings(key string) []string {
	return t.stringList(key, get[[]any](t, key, "a list of strings"))
}

// stringOrList returns the list's strings, or the one string.
func (t *table) stringOrList(key string) []string {
	if s, ok := t.m[key].(string); ok {
		t.known[key] = true
		return []string{s}
	}
	return t.stringList(key, get[[]any](t, key, "a string or a list of strings"))
}

func (t *table) stringList(key string, list []any) []string {
	var out []string
	for i, v := range list {
		s, ok := v.(string)
		if !ok {
			t.errorf(key, "must hold strings only, item %d is %s", i+1, typeName(v))
			return nil
		}
		out = append(out, s)
	}
	return out
}

// stringMap returns a table of strings.
func (t *table) stringMap(key string) map[string]string {
	sub := t.sub(key)
	if sub == nil {
		return nil
	}
	out := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(sub.m)) {
		out[k] = sub.string(k)
	}
	return out
}

// sub returns a table below this one, nil if there is none.
func (t *table) sub(key string) *table {
	m := get[map[string]any](t, key, "a table")
	if m == nil {
		return nil
	}
	return t.doc.table(join(t.key, key), m)
}

// done reports every key that was not asked for, with the nearest one that would have been.
func (t *table) done() {
	for _, key := range slices.Sorted(maps.Keys(t.m)) {
		if t.known[key] {
			continue
		}
		valid := slices.Sorted(maps.Keys(t.known))
		if near := nearest(key, valid); near != "" {
			t.errorf(key, "is not a key here; did you mean %s?", near)
		} else {
			t.errorf(key, "is not a key here; the keys are %s", strings.Join(valid, ", "))
		}
	}
}

func typeName(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case bool:
		return "a boolean"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	}
	return "a date or time"
}

// nearest returns the candidate that s was probably meant to be, or "".
func nearest(s string, candidates []string) string {
	fold := strings.NewReplacer("_", "-", "-", "-").Replace(strings.ToLower(s))
	best, least := "", max(2, len(s)/3)+1
	for _, c := range candidates {
		if d := editDistance(fold, c); d < least {
			best, least = c, d
		}
	}
	return best
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			corner, row[j+1] = row[j+1], min(corner+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
