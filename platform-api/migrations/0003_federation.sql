-- Where a membership or a role came from: `people` gave it, or the groups of an identity provider did (`groups`). What groups gave, groups
-- take away at the next login; what people gave stays.
ALTER TABLE memberships ADD COLUMN origin TEXT NOT NULL DEFAULT 'people';
ALTER TABLE accounts ADD COLUMN role_origin TEXT NOT NULL DEFAULT 'people';
