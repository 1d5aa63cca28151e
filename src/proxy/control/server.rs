/// Being built.
pub async fn serve() {}
