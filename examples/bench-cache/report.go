package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
)

// report is what a run found.
type report struct {
	Clients      int     `json:"clients"`
	Rounds       int     `json:"rounds"`
	Seconds      float64 `json:"seconds"`
	Compressible float64 `json:"compressible"`
	Peer         string  `json:"peer"`
	Rows         []row   `json:"rows"`
	names        []string
}

// row is one workload's samples, by server.
type row struct {
	Workload string              `json:"workload"`
	Unit     string              `json:"unit"`
	Budget   float64             `json:"budget,omitempty"`
	Samples  map[string][]sample `json:"samples"`
}

func newReport(o options, targets []*target) *report {
	r := &report{
		Clients: o.clients, Rounds: o.rounds, Seconds: o.seconds, Compressible: o.compressible,
		Peer: peerModule + " --storage_mode " + o.peerMode,
	}
	for _, t := range targets {
		r.names = append(r.names, t.name)
	}
	return r
}

func (r *report) add(w workload, samples map[string][]sample) {
	r.Rows = append(r.Rows, row{w.name, w.unit, w.budget, samples})
}

func (r *report) save(file string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// line says how one row went, for whoever waits.
func (r *report) line(i int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:", r.Rows[i].Workload)
	for _, name := range r.names {
		fmt.Fprintf(&b, "  %s %s", name, number(median(r.Rows[i].Samples[name]).Rate))
	}
	return b.String() + "\n"
}

// write prints the tables: the figures with their ratios, and what they cost.
func (r *report) write(w io.Writer) error {
	fmt.Fprintf(w, "\n%d clients, medians of %d rounds of at most %g s after one to warm up; %.0f %% of each blob is text, the rest random.\n",
		r.Clients, r.Rounds, r.Seconds, 100*r.Compressible)
	fmt.Fprintf(w, "A write is acknowledged when it is on disk; bazel-remote syncs each file, not its directory.\nPeer: %s; %d cores, shared with the generator.\n\n", r.Peer, runtime.NumCPU())
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "a second\t%s\t\t", strings.Join(r.names, "\t"))
	ours := len(r.names) == 3
	if ours {
		fmt.Fprint(tw, "to peer\tbudget\tof null\t")
	}
	fmt.Fprintln(tw)
	for _, row := range r.Rows {
		fmt.Fprintf(tw, "%s\t", row.Workload)
		for _, name := range r.names {
			fmt.Fprintf(tw, "%s\t", number(median(row.Samples[name]).Rate))
		}
		fmt.Fprintf(tw, "%s\t", row.Unit)
		if ours {
			mine := median(row.Samples[r.names[0]]).Rate
			fmt.Fprintf(tw, "%.1f x\t%s\t%.0f %%\t", mine/median(row.Samples[r.names[1]]).Rate, budget(row.Budget),
				100*mine/median(row.Samples[r.names[2]]).Rate)
		}
		fmt.Fprintln(tw)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nWhat it was spent on, per operation of the median round: a batch, a call, a blob of 32 MiB, a script's step.")
	fmt.Fprintln(w, "cores: busy on average; idle is what neither used, waiting for the disk or for each other.")
	tw = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "\tserver\tp50 ms\tp99 ms\tserver user µs\tsystem µs\tgenerator µs\tserver cores\tidle cores\tdisk KiB\tpeak RSS MiB\t")
	for _, row := range r.Rows {
		for _, name := range r.names {
			costs(tw, row, name)
		}
	}
	return tw.Flush()
}

func costs(w io.Writer, row row, name string) {
	s := median(row.Samples[name])
	each := func(seconds float64) float64 { return seconds * 1e6 / float64(s.Operations) }
	idle := float64(runtime.NumCPU()) - (s.Server.cpu()+s.Generator.cpu())/s.Seconds
	fmt.Fprintf(w, "%s\t%s\t%.2f\t%.2f\t%.0f\t%.0f\t%.0f\t%.2f\t%.2f\t%.1f\t%d\t\n", row.Workload, name, s.P50, s.P99,
		each(s.Server.User), each(s.Server.System), each(s.Generator.cpu()), s.Server.cpu()/s.Seconds, max(0, idle),
		float64(s.Server.Written)/1024/float64(s.Operations), s.Server.PeakRSS>>20)
}

func budget(b float64) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf(">= %g x", b)
}

// number writes a rate with three figures at least, and commas.
func number(v float64) string {
	if v < 100 {
		return fmt.Sprintf("%.1f", v)
	}
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
