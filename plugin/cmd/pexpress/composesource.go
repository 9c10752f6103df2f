package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/plugin/compose"
)

// projectFlags are those of the commands that read a project as a build tool has laid it out.
type projectFlags struct {
	request   compose.ProjectRequest
	files     []string
	links     []string
	asProject string
}

func (p *projectFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&p.files, "file", nil, "a file, `DEST=PATH`: where it stands in the tree and where it is; symlinks are read through; in DEST write \\= for = and \\\\ for \\")
	f.StringArrayVar(&p.links, "link", nil, "a symlink, `DEST=TARGET`")
	f.StringVar(&p.request.Dir, "project", "", "directory of a project: what goes in follows its configuration, as 'pexpress build' does")
	f.StringVar(&p.request.Root, "root", "", "directory that holds --project and the local projects it needs; --project is relative to it")
	f.BoolVar(&p.request.Follow, "follow", false, "read absolute symlinks in --project (or --root) through: sandboxes stage files so")
	f.StringVar(&p.asProject, "as-project", "", "the files are a project in this directory among them, \".\" for the top: its configuration counts")
	f.StringVar(&p.request.Location, "location", "", "the project's location (default: its only one)")
}

// read returns the project to read, nil if there is none, and the files and links that are given one by one.
func (p *projectFlags) read(c *cobra.Command) (*compose.ProjectRequest, []compose.Entry, []compose.Entry, error) {
	files, err := entries("file", p.files)
	if err != nil {
		return nil, nil, nil, err
	}
	links, err := entries("link", p.links)
	if err != nil {
		return nil, nil, nil, err
	}
	asProject, isDir := c.Flags().Changed("as-project"), p.request.Dir != ""
	switch {
	case asProject && (isDir || p.request.Root != "" || p.request.Follow):
		err = errors.New("--as-project is for files given with --file: give it, or --project, --root and --follow")
	case isDir && len(files)+len(links) > 0:
		err = errors.New("a project is given by --project, or by --file with --as-project, not by both")
	case !isDir && !asProject && (p.request.Location != "" || p.request.Root != "" || p.request.Follow):
		err = errors.New("--location, --root and --follow are about a project: give --project or --as-project")
	case asProject:
		p.request.Dir, p.request.Files, p.request.Links = p.asProject, files, links
		return &p.request, nil, nil, nil
	case isDir:
		return &p.request, nil, nil, nil
	}
	if err != nil {
		return nil, nil, nil, usageError{err}
	}
	return nil, files, links, nil
}

func (a *app) composeSourceCommand() *cobra.Command {
	var o composed
	var r compose.SourceRequest
	var p projectFlags
	c := &cobra.Command{
		Use:   "source --bootstrap DIR --python 3.11 --platform TAG (--file DEST=PATH... | --project DIR) --out DIR",
		Short: "Make source.pex of files, or of a project",
		Long: `Make source.pex of exactly the files that are given, or of a project.

A project is a directory (--project), or files given one by one that make up one (--as-project); what goes in, the
source roots and generated metadata follow its configuration, as with 'pexpress build'.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if r.Project, r.Files, r.Links, err = p.read(c); err != nil {
				return err
			}
			if r.Project != nil && len(r.SourceRoots) > 0 {
				return usageError{errors.New("a project's configuration says its source roots: --source-root is for files alone")}
			}
			out, err := compose.Source(c.Context(), r)
			return o.write(c.Context(), a, out, err)
		},
	}
	composeTargetFlags(c, &r.Bootstrap, &r.Python, &r.Platform)
	p.add(c)
	c.Flags().StringArrayVar(&r.SourceRoots, "source-root", nil, "directory of the tree to import from, before its top")
	c.Flags().BoolVar(&r.ASCII, "ascii", false, "refuse names that are not ASCII, for build tools that store them wrongly")
	o.flags(c)
	o.summaryFlags(c)
	return c
}

func (a *app) composeDescribeCommand() *cobra.Command {
	var r compose.DescribeRequest
	var p projectFlags
	var depsSummary, sourceSummary, out string
	c := &cobra.Command{
		Use:   "describe --deps DIR --source DIR [--name NAME] [--project DIR --location NAME] --out FILE",
		Short: "Describe a deployment by digests, for pexpress deploy --descriptor",
		Long: `Describe a deployment by digests, for 'pexpress deploy --descriptor'. What to run is the project's to say: the one that
source.pex was made of, whose summary says it, or the one given here.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			project, files, _, err := p.read(c)
			if err != nil {
				return err
			}
			if len(files) > 0 {
				return usageError{errors.New("--file is here for a project's files: give --as-project")}
			}
			r.Project = project
			if (r.Deps == "") == (depsSummary == "") || (r.Source == "") == (sourceSummary == "") {
				return usageError{errors.New("give either --deps or --deps-summary, and either --source or --source-summary")}
			}
			r.Deps, r.Source = first(r.Deps, depsSummary), first(r.Source, sourceSummary)
			d, err := compose.Describe(c.Context(), r)
			if err != nil {
				return composeError(err)
			}
			return compose.WriteJSON(out, d)
		},
	}
	f := c.Flags()
	f.StringVar(&r.Deps, "deps", "", "directory of a deps.pex")
	f.StringVar(&r.Source, "source", "", "directory of a source.pex")
	f.StringVar(&depsSummary, "deps-summary", "", "the summary of a deps.pex, in place of its directory")
	f.StringVar(&sourceSummary, "source-summary", "", "the summary of a source.pex, in place of its directory")
	f.StringVar(&r.Name, "name", "", "the location's name (default: the configuration's)")
	p.add(c)
	f.StringVar(&out, "out", "", "file to write")
	required(c, "out")
	return c
}
