package access

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache/auth"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

func newPolicy(t *testing.T, grants ...Grant) *Policy {
	t.Helper()
	p, err := New(grants)
	require.NoError(t, err)
	return p
}

func TestMay(t *testing.T) {
	p := newPolicy(t,
		Grant{Locations: []string{"staging", "pr-*"}, Principals: map[Right]auth.Patterns{Deploy: {"token:ci"}, Remove: {"token:cleaner"}}},
		Grant{Locations: []string{"prod"}, Principals: map[Right]auth.Patterns{Read: {"*"}, Rollback: {"cert:oncall-*"}}},
		Grant{Locations: []string{"status"}, Principals: map[Right]auth.Patterns{Read: {auth.Anonymous}}},
	)
	for _, test := range []struct {
		who      string
		right    Right
		location string
		may      bool
	}{
		{"token:ci", Deploy, "staging", true},
		{"token:ci", Read, "staging", true},
		{"token:ci", Rollback, "staging", false},
		{"token:ci", Remove, "staging", false},
		{"token:ci", Deploy, "pr-7", true},
		{"token:ci", Deploy, "pr-7/../prod", false},
		{"token:ci", Deploy, "pr-/prod", false},
		{"token:ci", Deploy, "staging2", false},
		{"token:ci", Deploy, "Staging", false},
		{"token:ci", Deploy, "", false},
		{"token:ci", Deploy, "prod", false},
		{"token:ci", Read, "prod", true},
		{"token:cleaner", Remove, "pr-7", true},
		{"token:cleaner", Deploy, "pr-7", false},
		{"cert:oncall-1", Rollback, "prod", true},
		{"token:oncall-1", Rollback, "prod", false},
		{auth.Anonymous, Read, "status", true},
		{auth.Anonymous, Deploy, "status", false},
		{auth.Anonymous, Read, "prod", false},
		{"", Read, "prod", false},
		{"", Read, "status", false},
	} {
		require.Equal(t, test.may, p.May(test.who, test.right, test.location), "%+v", test)
	}
	require.True(t, p.Anonymous())
	require.False(t, new(Policy).May("token:ci", Read, "prod"), "the zero policy lets nobody in")
}

func TestGrantsRefused(t *testing.T) {
	reader := map[Right]auth.Patterns{Read: {"token:a"}}
	for want, g := range map[string]Grant{
		"names no locations":           {Principals: reader},
		`can be called "a/b"`:          {Locations: []string{"a/b"}, Principals: reader},
		`can be called "[a-z]"`:        {Locations: []string{"[a-z]"}, Principals: reader},
		`can be called "a?"`:           {Locations: []string{"a?"}, Principals: reader},
		`can be called ".."`:           {Locations: []string{".."}, Principals: reader},
		`can be called ""`:             {Locations: []string{""}, Principals: reader},
		"names no principal":           {Locations: []string{"a"}},
		`nobody is called "ci"`:        {Locations: []string{"a"}, Principals: map[Right]auth.Patterns{Deploy: {"ci"}}},
		`nobody is called "token:"`:    {Locations: []string{"a"}, Principals: map[Right]auth.Patterns{Deploy: {"token:"}}},
		"may read at most, not deploy": {Locations: []string{"a"}, Principals: map[Right]auth.Patterns{Deploy: {auth.Anonymous}}},
	} {
		_, err := New([]Grant{g})
		require.ErrorContains(t, err, want)
	}
}

// TestEveryMethodHasARule has a method that is added without one fail here, and closed at run time (TestUnknownMethod).
// A request's locations are found whatever kind it is: a field that is renamed must not open a method to everyone.
func TestEveryMethodHasARule(t *testing.T) {
	methods := codeserverpb.File_codeserver_proto_v1_codeserver_proto.Services().ByName("CodeServer").Methods()
	require.Positive(t, methods.Len())
	requests := map[string]proto.Message{
		"Deploy": &codeserverpb.DeployRequest{Location: "a"}, "Rollback": &codeserverpb.RollbackRequest{Location: "a"},
		"Restart":   &codeserverpb.RestartRequest{Location: "a"},
		"DeployAll": &codeserverpb.DeployAllRequest{Deploys: []*codeserverpb.DeployRequest{{Location: "a"}, {Location: "b"}}},
		"Remove":    &codeserverpb.RemoveRequest{Location: "a"}, "List": &codeserverpb.ListRequest{},
		"Watch": &codeserverpb.WatchRequest{Location: "a"}, "Logs": &codeserverpb.LogsRequest{Location: "a"},
	}
	want := map[string][]string{"DeployAll": {"a", "b"}, "List": nil}
	for i := range methods.Len() {
		m := methods.Get(i)
		name := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
		r, ok := rules[name]
		require.True(t, ok, "%s has no rule in rules: nobody may call it", name)
		req, ok := requests[string(m.Name())]
		require.True(t, ok, "add %s here", name)
		locations, ok := want[string(m.Name())]
		if !ok {
			locations = []string{"a"}
		}
		require.Equal(t, locations, r.locations(req), name)
	}
	require.Len(t, rules, methods.Len(), "a rule is for no method")
}
