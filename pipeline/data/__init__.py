"""Files to arrays, once; tables to rows; keyed batches on the device."""
