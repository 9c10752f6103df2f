package main

import (
	"context"
	"errors"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/plugin/action"
	"github.com/pexpress/pexpress/plugin/build"
	"github.com/pexpress/pexpress/plugin/project"
)

func (a *app) explainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain [LOCATION...]",
		Short: "Say what a build would do, and which change makes it do so",
		Long: `Say of each action whether the cache has its result, which files and fields have changed since this checkout was
built last, and how many bytes would be stored. Nothing is built, downloaded or stored but, in an empty cache, pex's own
runtime, which every plan names.`,
		ValidArgsFunction: a.completeLocations,
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), func(s *session) error { return s.explain(c.Context(), args) })
		},
	}
	a.targetFlags(c)
	return c
}

func (s *session) explain(ctx context.Context, names []string) error {
	locs, err := s.locations(names)
	if err != nil {
		return err
	}
	for _, loc := range locs {
		if err := s.explainLocation(ctx, loc); err != nil {
			return fmt.Errorf("location %s: %w", loc.Name, err)
		}
	}
	return nil
}

func (s *session) explainLocation(ctx context.Context, loc *project.Location) error {
	deps, source, err := s.plan(ctx, loc)
	if err != nil {
		return err
	}
	last := s.lastPlan(loc.Name)
	if err := s.explainAction(ctx, loc, deps.Plan, last.DepsAction); err != nil {
		return err
	}
	if err := s.explainAction(ctx, loc, source.Plan, last.SourceAction); err != nil {
		return err
	}
	for _, o := range s.project.Outputs {
		p, err := s.planOutput(ctx, o)
		if err != nil {
			return fmt.Errorf("output %s: %w", o.Name, err)
		}
		p.builder.close()
		if err := s.explainAction(ctx, loc, p.Plan, last.Outputs[o.Name]); err != nil {
			return err
		}
	}
	return nil
}

// explanation is the event that explain prints for an action.
type explanation struct {
	Location string         `json:"location"`
	Output   string         `json:"output"`
	Action   digest.Digest  `json:"action"`
	Hit      bool           `json:"hit"`
	Previous *digest.Digest `json:"previous_action,omitempty"`
	Changes  []build.Change `json:"changes,omitempty"`
	Fields   []string       `json:"fields,omitempty"`
	Ship     int64          `json:"bytes_to_store"`
	Blobs    int            `json:"blobs_to_store"`
}

func (s *session) explainAction(ctx context.Context, loc *project.Location, plan *action.Plan, last digest.Digest) error {
	e := explanation{Location: loc.Name, Output: plan.Output, Action: plan.Digest}
	_, err := s.results.GetActionResult(ctx, plan.Digest)
	if err != nil && !errors.Is(err, cache.ErrNotFound) {
		return err
	}
	e.Hit = err == nil
	if !e.Hit {
		if err := s.explainShip(ctx, plan, &e); err != nil {
			return err
		}
	}
	reason := "the last build was the same"
	switch {
	case last.IsZero():
		reason = "this checkout was not built before"
	case last != plan.Digest:
		e.Previous = &last
		reason, err = s.explainChange(ctx, plan, last, &e)
		if err != nil {
			return err
		}
	}
	s.printExplanation(&e, reason)
	return nil
}

// explainShip adds up the inputs that the cache lacks. What the builder generates on top is small and not counted.
func (s *session) explainShip(ctx context.Context, plan *action.Plan, e *explanation) error {
	var all []digest.Digest
	for _, d := range plan.InputRoot.Files() {
		all = append(all, d)
	}
	for d := range plan.InputRoot.Blobs() {
		all = append(all, d)
	}
	missing, err := s.cas.FindMissing(ctx, all)
	for _, d := range missing {
		e.Ship += d.Size()
		e.Blobs++
	}
	return err
}

// explainChange compares the plan with the last one.
func (s *session) explainChange(ctx context.Context, plan *action.Plan, last digest.Digest, e *explanation) (string, error) {
	before, inputs, err := s.inputs(ctx, last)
	if err != nil {
		return "", err
	}
	if before == nil {
		return "something changed; the cache no longer has the last plan to compare with", nil
	}
	e.Changes = build.Diff(inputs, plan.InputRoot)
	e.Fields = changedFields(before, plan)
	return "changed since the last build", nil
}

// changedFields names what differs between two Actions beside their inputs: their platform properties.
func changedFields(before *repb.Action, after *action.Plan) []string {
	old := map[string]string{}
	for _, p := range before.GetPlatform().GetProperties() {
		old[p.GetName()] = p.GetValue()
	}
	var fields []string
	for _, p := range after.Action.GetPlatform().GetProperties() {
		if old[p.GetName()] != p.GetValue() {
			fields = append(fields, fmt.Sprintf("%s: %q → %q", p.GetName(), old[p.GetName()], p.GetValue()))
		}
	}
	return fields
}

func (s *session) printExplanation(e *explanation, reason string) {
	text := fmt.Sprintf("%s of %s: cache hit, nothing to do; %s", e.Output, e.Location, reason)
	if !e.Hit {
		text = fmt.Sprintf("%s of %s: to be built, %s (%s) to store; %s", e.Output, e.Location,
			size(e.Ship), count(e.Blobs, "blob"), reason)
	}
	for _, f := range e.Fields {
		text += "\n  " + f
	}
	for _, c := range e.Changes {
		text += fmt.Sprintf("\n  %-8s %s", c.Kind, oneLine(c.Path))
		if c.Kind != "removed" {
			text += fmt.Sprintf(" (%s)", size(c.Size))
		}
	}
	s.app.ui.event("explained", e, "%s", text)
}
