package ci

import (
	"fmt"
	"strings"
	"time"
)

// Summary is the report in markdown, for the pipeline's page.
func (r *Report) Summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "## pexpress: %s\n\n", r.headline())
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "> **Warning:** %s\n\n", code(w))
	}
	if r.Error != "" {
		b.WriteString(fence(r.Error))
	}
	for _, l := range r.Locations {
		l.summary(&b)
	}
	return b.String()
}

// Comment is the report in a few lines of markdown, for the pull request. The first line lets whoever posts it find the
// one that it replaces.
func (r *Report) Comment() string {
	var b strings.Builder
	fmt.Fprintf(&b, "<!-- pexpress ci -->\n**pexpress**: %s\n\n", r.headline())
	for _, l := range r.Locations {
		fmt.Fprintf(&b, "* %s: %s", code(l.As), l.Kind)
		if l.URL != "" {
			fmt.Fprintf(&b, ", %s", link(l.URL, l.URL))
		}
		if source, deps := l.Digest("source.pex"), l.Digest("deps.pex"); !source.IsZero() && !deps.IsZero() {
			fmt.Fprintf(&b, " (source.pex %s, deps.pex %s)", code(source.Short()), code(deps.Short()))
		}
		b.WriteString("\n")
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "* Warning: %s\n", code(w))
	}
	if r.Run.URL != "" {
		fmt.Fprintf(&b, "\n%s\n", link("What was rebuilt, shipped, and how long it took", r.Run.URL))
	}
	return b.String()
}

func (r *Report) headline() string {
	what := map[Kind]string{
		Built: "built, not deployed", Superseded: "built; a later push is deployed in its place", Unchanged: "nothing changed",
		Fast: "fast deploy, only source.pex was shipped", Full: "full deploy", Removed: "removed", Nothing: "nothing to remove", Failed: "failed",
	}[r.Kind()]
	on := code(r.Run.Branch)
	if r.Run.Number > 0 {
		on += fmt.Sprintf(" (#%d)", r.Run.Number)
	}
	return fmt.Sprintf("%s · %s · %s", on, what, took(r.Took))
}

func (l *Location) summary(b *strings.Builder) {
	fmt.Fprintf(b, "### %s: %s\n\n", code(l.As), l.Kind)
	if l.URL != "" {
		fmt.Fprintf(b, "%s\n\n", link(l.URL, l.URL))
	}
	if len(l.Outputs) > 0 {
		b.WriteString("| output | digest | | time |\n|---|---|---|---:|\n")
		for _, o := range l.Outputs {
			how := "rebuilt"
			if o.Hit {
				how = "from the cache"
			}
			fmt.Fprintf(b, "| %s | %s | %s | %s |\n", o.Name, code(o.Digest.String()), how, took(o.Took))
		}
		fmt.Fprintf(b, "\nShipped: %d new blobs, %s, to the cache; %s from there to the codeserver.\n\n", l.Blobs, size(l.Bytes), size(l.Fetched))
	}
	if len(l.Stages) > 0 {
		b.WriteString("| stage | time | bytes |\n|---|---:|---:|\n")
		for _, s := range l.Stages {
			fmt.Fprintf(b, "| %s | %s | %s |\n", s.Name, took(s.Took), size(s.Bytes))
		}
		b.WriteString("\n")
	}
	if l.Error != "" {
		b.WriteString(fence(l.Error))
	}
}

// code is text as it is, on one line: names of branches and files are others' words, and markdown would read them.
func code(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	ticks := strings.Repeat("`", longestRun(s)+1)
	if strings.HasPrefix(s, "`") || strings.HasSuffix(s, "`") {
		s = " " + s + " "
	}
	if s == "" {
		return ""
	}
	return ticks + strings.ReplaceAll(s, "|", "\\|") + ticks
}

// fence is text as it is, in a block of its own.
func fence(s string) string {
	ticks := strings.Repeat("`", max(3, longestRun(s)+1))
	return ticks + "text\n" + strings.TrimRight(s, "\n") + "\n" + ticks + "\n\n"
}

func longestRun(s string) int {
	longest, run := 0, 0
	for _, r := range s {
		if run++; r != '`' {
			run = 0
		}
		longest = max(longest, run)
	}
	return longest
}

func link(text, url string) string {
	clean := strings.NewReplacer("[", "(", "]", ")", "\n", " ", "<", "", ">", "").Replace
	return "[" + clean(text) + "](<" + clean(url) + ">)"
}

func took(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.0f ms", float64(d.Microseconds())/1000)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1024, "KiB"
	for _, u := range []string{"MiB", "GiB"} {
		if f >= 1024 {
			f, unit = f/1024, u
		}
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}
