-- Store deliveries without what they said about forgotten people.
UPDATE fubd.delivery d SET body = n.body FROM unnest(:id::bigint[], :body::bytea[]) AS n(id, body) WHERE d.id = n.id
