package action

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

// TestOutput pins the Action of an outside plugin's tree: what it is made of, and its digest.
func TestOutput(t *testing.T) {
	var b merkle.Builder
	require.NoError(t, b.File("assets/a.css", digest.FromBytes([]byte("a"))))
	tree, err := b.Build()
	require.NoError(t, err)
	in := OutputInput{Name: "static", Kind: "assets", Inputs: tree, OutputVersion: "1", Program: digest.FromBytes([]byte("program"))}
	p, err := Output(in)
	require.NoError(t, err)
	require.Equal(t, []string{"pexpress", "builder", "assets"}, p.Command.GetArguments())
	require.Equal(t, []string{"static"}, p.Command.GetOutputPaths())
	for path := range p.InputRoot.Files() {
		require.Equal(t, "inputs/assets/a.css", path)
	}
	require.Equal(t, "cb4abb1eb89be812f391ad3157c4158083a0c7a427722020cf4311ba692057e5/267", p.Digest.String(), "an Action that changes is built again everywhere")
	for _, change := range []func(*OutputInput){
		func(in *OutputInput) { in.Program = digest.FromBytes([]byte("another")) },
		func(in *OutputInput) { in.OutputVersion = "2" },
		func(in *OutputInput) { in.Kind = "other" },
		func(in *OutputInput) { in.Name = "other" },
	} {
		other := in
		change(&other)
		q, err := Output(other)
		require.NoError(t, err)
		require.NotEqual(t, p.Digest, q.Digest)
	}
	in.OutputVersion = ""
	_, err = Output(in)
	require.ErrorIs(t, err, ErrInput)
}
